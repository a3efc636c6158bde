"""Whether the objects of a clip stay what they are.

Everything is judged in frames in which an object is seen and nothing is near
enough to hide it. An object that is seen in less than half of the frames
persists in nothing; one that is seen but rarely without another one near it is
not judged.
"""

from etils.array_types import BoolArray
import numpy as np

from vdm.common import shapes
from vdm.metrics import tracking
from vdm.metrics import trajectories

OF_OBJECTS = ('shape_kept', 'size_kept', 'hue_kept')
KEPT = (*OF_OBJECTS, 'path_kept', 'number_kept')
# Limits, a multiple of what autoencoders of this size add to real clips: one
# frame of 16 may have another shape, sizes vary by 3 % (standard deviation over
# mean), hues by 5 degrees. A path trembles whose median second difference in
# free flight is larger, px.
_ODD_FRAMES = 1 / 16
_SIZE, _HUE, _TREMBLE = 0.03, 5.0, 0.25
_LEAST_FRAMES = 3  # To judge an object by.


def measure(
  tracks: tracking.Tracks,
  alone: BoolArray['k t'],
  objects: int,
  scale: float,
  acceleration: float,
) -> dict[str, np.ndarray | float]:
  """Measures one clip.

  Args:
    tracks: of the clip, the longest first.
    alone: `trajectories.unoccluded` of them.
    objects: how many there should be.
    scale: shorter side of the clip over 64 px.
    acceleration: median in free flight, less gravity, px; NaN: unknown.

  Returns:
    1 or 0 for the clip, NaN where unknown: `OF_OBJECTS`, of every object that
    can be judged; 'path_kept', of all of them; 'number_kept': there are as many
    tracks as objects, never more objects, and none is missing where no other
    can be hiding it. 'clear', mean over objects and frames of
    `shape_names.name`; 'kind' [objects], their most frequent names, NaN where
    unknown.
  """
  rows = [_one(tracks, alone, i) for i in range(min(objects, len(alone)))]
  rows += [_nothing(0.0)] * (objects - len(rows))
  values = {
    name: np.array([row[name] for row in rows], np.float64)
    for name in (*OF_OBJECTS, 'clear', 'kind')
  }
  judged = np.isfinite(values['clear'])
  found = {
    name: float(values[name][judged].all()) if judged.any() else np.nan
    for name in OF_OBJECTS
  }
  steady = float(acceleration <= _TREMBLE)
  kept = len(alone) == objects and (tracks.count <= objects).all()
  return {
    **found,
    'path_kept': steady if np.isfinite(acceleration) else np.nan,
    'number_kept': float(
      kept and not trajectories.vanished(tracks, scale).any()
    ),
    'clear': values['clear'][judged].mean() if judged.any() else np.nan,
    'kind': values['kind'],
  }


def _nothing(value: float) -> dict[str, float]:
  return {**dict.fromkeys((*OF_OBJECTS, 'clear'), value), 'kind': np.nan}


def _one(tracks, alone, i) -> dict[str, float]:
  """Returns what persists of the track i."""
  free, t = alone[i], alone.shape[1]
  if tracks.seen()[i].sum() < max(_LEAST_FRAMES, t / 2):
    return _nothing(0.0)
  if free.sum() < _LEAST_FRAMES:
    return _nothing(np.nan)
  names = tracks.kind[i][free].astype(int)
  counts = np.bincount(names, minlength=len(shapes.NAMES))
  sizes = tracks.size[i][free]
  return {
    'shape_kept': len(names) - counts.max() <= _ODD_FRAMES * t,
    'size_kept': sizes.std() <= _SIZE * sizes.mean(),
    'hue_kept': trajectories.hue_drift(tracks.hue[i][free]) <= _HUE,
    'clear': tracks.clear[i][free].mean(),
    'kind': float(counts.argmax()),
  }
