"""Whether the object of a synthetic scene is where and what it was to become.

Of scenes with one object, whatever moves it: tracks of continued clips are
compared with those of the true ones.
"""

from collections.abc import Callable, Sequence
import functools

from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm.common import shapes
from vdm.evaluation import synthetic_score
from vdm.metrics import object_finder
from vdm.metrics import rgb_clips
from vdm.metrics import tracking

TITLES = {
  'position_error': (
    'position error farthest from given frames, px at 64 px',
    1,
  ),
  'one_object': ('one object in every frame, %', 100),
  'shape_given': ('clips with the given shape, %', 100),
  'size_error': ('size error, %', 100),
  'hue_error': ('hue error, degrees', 1),
}


def make_measure(data: ConfigDict) -> Callable[..., dict]:
  """Returns (tries [k n t h w 3], truth [n t h w 3], given) -> its errors.

  Over the frames that are not given, medians over all clips: 'position_error',
  the distance from the true place at the frame that is farthest in time from
  given ones, of clips that show an object there, and '_by_frame' at each;
  'size_error' and 'hue_error', of a clip's mean size, relative, and hue,
  degrees. Shares of all clips: 'one_object', with one in each of these frames
  and never two; 'shape_given', whose most frequent shape is the true one.
  Lengths are px at 64 px. What no clip defines is left out.

  Args:
    data: `config.data`; of other data sets the function returns {}.
  """
  if not synthetic_score.is_synthetic(data) or data.scenes.objects != 1:
    return lambda *_: {}
  look = functools.partial(_track, data.scenes.walls, data.scenes.rotation)

  def measure(
    tries: ui8['k n t h w 3'],
    truth: ui8['n t h w 3'],
    given: Sequence[int],
  ) -> dict[str, float | list[float]]:
    free = np.setdiff1d(np.arange(truth.shape[1]), given)
    known = rgb_clips.measure_each(look, truth)
    made = [rgb_clips.measure_each(look, clips) for clips in tries]
    made = {
      name: np.stack([x[name] for x in made])[:, :, free] for name in known
    }
    known = {name: x[:, free] for name, x in known.items()}
    away = np.linalg.norm(made['centre'] - known['centre'], axis=-1)
    away *= 64 / min(truth.shape[2:4])
    by_frame = [_median(away[..., i]) for i in range(len(free))]
    gap = np.abs(free[:, None] - np.asarray(given)).min(1)
    farthest = np.flatnonzero(gap == gap.max())[-1]
    size = _mean(made['size']) / _mean(known['size']) - 1
    hue = object_finder.hue_distance(_hue(made['hue']), _hue(known['hue']))
    found = {
      'position_error': by_frame[farthest],
      'size_error': _median(np.abs(size)),
      'hue_error': 360 * _median(hue),
    }
    return {
      **{name: x for name, x in found.items() if np.isfinite(x)},
      'position_error_by_frame': [
        x if np.isfinite(x) else None for x in by_frame
      ],
      'one_object': float((made['count'] == 1).all(-1).mean()),
      'shape_given': float(
        (_usual(made['kind']) == _usual(known['kind'])).mean()
      ),
    }

  return measure


def _track(walls, turning, video: np.ndarray) -> dict[str, np.ndarray]:
  """Returns what is seen of the longest track in each frame of a clip."""
  side = min(video.shape[1:3])
  tracks = tracking.link(object_finder.find(video, turning), side, walls)
  t = len(video)
  if not len(tracks.size):
    unknown = np.full(t, np.nan)
    seen = dict.fromkeys(('size', 'hue', 'kind'), unknown)
    return {**seen, 'centre': np.full((t, 2), np.nan), 'count': tracks.count}
  names = ('centre', 'size', 'hue', 'kind')
  seen = {name: getattr(tracks, name)[0] for name in names}
  return {**seen, 'count': tracks.count}


def _median(values: np.ndarray) -> float:
  known = values[np.isfinite(values)]
  return float(np.median(known)) if known.size else np.nan


def _mean(values: np.ndarray) -> np.ndarray:
  """Returns means over frames of what is known, NaN where nothing is."""
  known = np.isfinite(values)
  total = np.where(known, values, 0).sum(-1)
  return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan)


def _hue(values: np.ndarray) -> np.ndarray:
  """Returns the mean on the circle of hues, in turns, as `_mean`."""
  mean = _mean(np.exp(2j * np.pi * values))
  return np.angle(mean) / (2 * np.pi) % 1


def _usual(kinds: np.ndarray) -> np.ndarray:
  """Returns the most frequent name over frames, -1 where there is none."""
  counts = np.stack(
    [(kinds == i).sum(-1) for i in range(len(shapes.NAMES))], -1
  )
  return np.where(counts.any(-1), counts.argmax(-1), -1)
