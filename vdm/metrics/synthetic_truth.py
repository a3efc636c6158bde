"""Compares clips of one straight mover with the ground truth of their scenes.

The scenes are those of `data/synthetic/scenes.py` with one object that moves in
a straight line. In each frame it is detected as the biggest connected patch of
pixels that differ from the ground (the clip's median colour) by at least half
as much as the object usually does in that clip. Pixels around the patch are
weighted by their difference, so blur changes neither centre nor area. Centres
have the coordinates of the scenes: x right, y down, the middle of the top left
pixel at (0.5, 0.5). A straight line at constant speed is fitted to the centres.

No property of a clip is taken for granted: blank, noisy or frozen clips give
finite numbers, and bad ones. Where no object, and hence no motion, is detected,
the residual is 100 % and the drift the largest possible.
"""

import cv2
from etils.array_types import IntArray, ui8
import numpy as np

from vdm.common import tables
from vdm.metrics import directions
from vdm.metrics import object_finder
from vdm.metrics import rgb_clips
from vdm.metrics import trajectories

_AREAS = (0.005, 0.2)  # Smallest and largest object, as shares of the frame.
_LEAST_AREA = 0.4  # Of the usual area: a smaller patch is no object.
_UNDEFINED = 100.0  # Residual where no line can be fitted, % of the side.
_FARTHEST = 255 * 3**0.5  # Greatest distance of two colours, grey levels.

_TITLES = {
  'label_agreement': ('label agreement of the fitted line, %', 100),
  'residual_percent': ('residual, % of the side', 1),
  'present_share': ('present throughout, %', 100),
  'single_share': ('never two objects, %', 100),
  'colour_drift': ('colour drift, %', 100),
  'size_variation': ('size variation of the biggest patch, %', 100),
}
# Compared with the real clips as a set.
RATIOS = {
  'speed_ratio': ('speed / real', 1),
  'spread_start_x': ('spread of starts, x / real', 1),
  'spread_start_y': ('spread of starts, y / real', 1),
  'spread_place_x': ('spread of places, x / real', 1),
  'spread_place_y': ('spread of places, y / real', 1),
  'spread_speed': ('spread of speeds / real', 1),
  'spread_hue': ('spread of hues / real', 1),
}


def measure(videos: ui8['n t h w 3']) -> dict[str, np.ndarray]:
  """Measures each clip independently.

  Returns:
    Per frame: 'present' bool [n t]; 'single' bool [n t], no second patch at
    least a third as big; 'centre' [n t 2] (x, y), px; 'size' [n t], radius of
    the disc of equal area, px; 'colour' [n t 3], grey levels. The last three
    are NaN where the object is not present.
    Per clip, of the line fitted to the frames in which it is present:
    'start' [n 2], at the first frame; 'place' [n 2], in the middle of the
    clip; 'velocity' [n 2], px per frame; 'direction' int [n], nearest of the
    eight classes, -1 if it stands still or was detected in fewer than three
    frames or half of them; 'residual' [n], root mean square over the frames of
    the distance between the centre and the line at that time, % of the frame's
    shorter side;
    'drift' [n], mean distance between the colours of any two frames, grey
    levels; 'size_variation' [n], standard deviation over mean of the size;
    'hue' [n], of the mean colour, in turns.
  """
  return rgb_clips.measure_each(_measure, videos)


def summarise(
  measured: dict[str, np.ndarray],
  labels: IntArray[' n'] | None = None,
  reference: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
  """Summarises a set of clips; every value is finite.

  Args:
    measured: `measure` of the clips.
    labels: motion classes, -1 for none; if none, no label agreement.
    reference: `measure` of real clips; if None, no ratios.

  Returns:
    'clips', their number; 'label_agreement', share of the labelled clips whose
    direction is the label; 'residual_percent', median over clips;
    'present_share', of the clips with an object in every frame;
    'single_share', of the clips in which no frame has a second one;
    'colour_drift', the median over clips of the mean colour distance between
    two frames of a clip, relative to the mean distance between frames of
    different clips of the set (about 1 for random frames), and left out for a
    single clip; 'size_variation', median over clips, 1 where undefined.
    With a reference: 'speed_ratio', of median speeds, and ratios of spreads,
    'spread_start_x', 'spread_start_y', 'spread_speed' (distance between the
    10th and 90th percentile) and 'spread_hue' (mean circular distance between
    two clips). The label determines much of the start, as no path leaves the
    frame: 'spread_place_x' and '_y', of the middle of the path, stay small if
    all clips of a label are alike.
  """
  clips = len(measured['direction'])
  values = {'clips': float(clips)}
  agreement = directions.agreement(measured['direction'], labels)
  if agreement is not None:
    values['label_agreement'] = agreement
  values['residual_percent'] = float(np.median(measured['residual']))
  values['present_share'] = float(measured['present'].all(1).mean())
  values['single_share'] = float(measured['single'].all(1).mean())
  if clips > 1:
    # 1 where no colours are known. Clips of one colour count as a grey level
    # apart.
    between = _between(measured['colour'])
    drift = float(np.median(measured['drift']))
    known = np.isfinite(between)
    values['colour_drift'] = drift / max(between, 1.0) if known else 1.0
  values['size_variation'] = float(np.median(measured['size_variation']))
  if reference is None:
    return values

  ours, theirs = _spreads(measured), _spreads(reference)
  for name, spread in ours.items():
    real = theirs[name]
    values[name] = float(spread / real) if real > 0 else 0.0
  return values


def table(rows: dict[str, dict[str, float]]) -> str:
  """Formats summaries {set: numbers} as text, a column per set."""
  return tables.by_set(rows, {'clips': ('clips', 1), **_TITLES, **RATIOS})


def _measure(video: np.ndarray) -> dict[str, np.ndarray]:
  frames = _find(video)
  return {**frames, **_describe(frames, min(video.shape[1:3]))}


def _find(video: np.ndarray) -> dict[str, np.ndarray]:
  """Detects the object in each frame of a clip, uint8 [t h w 3]."""
  t, h, w, _ = video.shape
  channels = np.moveaxis(video, -1, 0)
  differences = [
    cv2.absdiff(channel, np.full_like(channel, _median(channel)))
    for channel in channels
  ]
  signal = np.max(differences, axis=0).astype(np.float32)
  least = int(np.ceil(_AREAS[0] * h * w))
  most = _AREAS[1] * h * w
  found = {
    'present': np.zeros(t, bool),
    'single': np.ones(t, bool),
    'centre': np.full([t, 2], np.nan),
    'size': np.full(t, np.nan),
    'colour': np.full([t, 3], np.nan),
  }
  for i, mask in enumerate(object_finder.foreground(signal, least)):
    patches, names, stats, _ = cv2.connectedComponentsWithStats(
      mask.astype(np.uint8), connectivity=8
    )
    areas = stats[1:, cv2.CC_STAT_AREA]
    if patches < 2 or not least <= areas.max() <= most:
      continue
    order = np.argsort(areas)[::-1]
    found['present'][i] = True
    found['single'][i] = patches == 2 or areas[order[1]] < areas[order[0]] / 3
    object_ = object_finder.weighted_moments(
      video[i], signal[i], names == order[0] + 1
    )
    for name in ('centre', 'size', 'colour'):
      found[name][i] = getattr(object_, name)
  if found['present'].any():
    small = found['size'] < _LEAST_AREA**0.5 * np.nanmedian(found['size'])
    found['present'] &= ~small
    for name in ('centre', 'size', 'colour'):
      found[name][small] = np.nan
  return found


def _median(values: np.ndarray) -> int:
  """Returns the median grey level, the lower of two."""
  counts = np.cumsum(np.bincount(values.reshape(-1), minlength=256))
  return int(np.searchsorted(counts, (counts[-1] + 1) // 2))


def _describe(frames: dict[str, np.ndarray], side: int) -> dict:
  """Returns the numbers per clip, see `measure`."""
  present = frames['present']
  t = len(present)
  unknown = np.full(2, np.nan)
  clip = {
    'start': unknown,
    'place': unknown,
    'velocity': unknown,
    'direction': np.array(-1),
    'residual': np.array(_UNDEFINED),
    'drift': np.array(_FARTHEST),
    'size_variation': np.array(1.0),
    'hue': np.array(np.nan),
  }
  if present.sum() < max(3, t / 2):
    return clip
  times = np.nonzero(present)[0]
  centre = frames['centre'][present]
  basis = np.stack([np.ones(len(times)), times], axis=1)
  fit, *_ = np.linalg.lstsq(basis, centre, rcond=None)
  squared = np.square(centre - basis @ fit).sum(-1)
  start, velocity = fit
  clip['start'], clip['velocity'] = start, velocity
  clip['place'] = start + velocity * (t - 1) / 2
  if np.hypot(*velocity) * (t - 1) >= trajectories.STANDING * side:
    clip['direction'] = directions.nearest(velocity)
  clip['residual'] = 100 * np.sqrt(squared.mean()) / side
  colour, size = frames['colour'][present], frames['size'][present]
  clip['drift'] = _pairs(colour).mean()
  clip['size_variation'] = size.std() / size.mean()
  clip['hue'] = object_finder.hue_of(colour.mean(0))
  return clip


def _pairs(colours: np.ndarray) -> np.ndarray:
  """Returns the distances between all pairs of colours [n 3]."""
  first, second = np.triu_indices(len(colours), 1)
  return np.linalg.norm(colours[first] - colours[second], axis=-1)


def _between(colours: np.ndarray) -> float:
  """Returns the mean distance between frames of different clips [n t 3].

  Frames are compared with those at the same time in up to 63 other clips. NaN
  if no two of them have a colour.
  """
  n = len(colours)
  shifts = np.unique(np.linspace(1, n - 1, min(n - 1, 63)).astype(int))
  distances = np.stack(
    [
      np.linalg.norm(colours - np.roll(colours, shift, axis=0), axis=-1)
      for shift in shifts
    ]
  )
  known = np.isfinite(distances)
  return float(distances[known].mean()) if known.any() else np.nan


def _spreads(measured: dict[str, np.ndarray]) -> dict[str, float]:
  """Returns the quantities of which `summarise` takes ratios."""
  speed = np.linalg.norm(measured['velocity'], axis=-1)
  known = np.isfinite(speed)
  if known.sum() < 2:
    return dict.fromkeys(RATIOS, 0.0)
  start, place = measured['start'][known], measured['place'][known]
  speed, hue = speed[known], measured['hue'][known]
  first, second = np.triu_indices(len(hue), 1)
  hues = object_finder.hue_distance(hue[first], hue[second])
  columns = np.column_stack([start, place, speed])
  low, high = np.percentile(columns, [10, 90], axis=0)
  values = [np.median(speed), *(high - low), hues.mean()]
  return dict(zip(RATIOS, values, strict=True))
