"""Judges clips of one moving object, as `data/scenes.py` makes them.

In every frame the object is looked for as the biggest connected patch that
stands out from the ground (the clip's median colour) at least half as far as
the object usually does in that clip. Around the patch, each pixel counts by
how far it stands out, so blur moves neither centre nor area. Centres have the
coordinates of the scenes: x right, y down, the top left pixel's middle at
(0.5, 0.5). A straight line at constant speed is fitted to the centres.

Nothing here trusts a clip: one that is blank, noise or frozen gives finite
numbers that count against it. Where an object, and hence a motion, is not
found, the residual is 100 % and the drift the largest there is.
"""

import cv2
import numpy as np

from vdm.common import tables
from vdm.metrics import object_finder

_LEAST_SIGNAL = 48  # Grey levels by which an object must stand out.
_AREAS = (0.005, 0.2)  # An object's share of the frame, at least and at most.
_CHANGE = 0.4  # A frame's area or signal below this share: no object there.
_REST = 0.02  # Travel, as a share of the width, that is still standing.
_UNDEFINED = 100.0  # Residual where no line can be fitted, % of the width.
_FARTHEST = 255 * 3**0.5  # Between two colours, grey levels.

_TITLES = {
  'label_agreement': ('label agreement, %', 100),
  'residual_percent': ('residual, % of width', 1),
  'present_share': ('present throughout, %', 100),
  'single_share': ('never two objects, %', 100),
  'colour_drift': ('colour drift, %', 100),
  'size_variation': ('size variation, %', 100),
}
_RATIOS = {
  'speed_ratio': ('speed / real', 1),
  'spread_start_x': ('spread of starts, x / real', 1),
  'spread_start_y': ('spread of starts, y / real', 1),
  'spread_place_x': ('spread of places, x / real', 1),
  'spread_place_y': ('spread of places, y / real', 1),
  'spread_speed': ('spread of speeds / real', 1),
  'spread_hue': ('spread of hues / real', 1),
}


def measure(videos: np.ndarray) -> dict[str, np.ndarray]:
  """Measures each clip by itself.

  Args:
    videos: Clips, uint8 [n t h w 3].

  Returns:
    Per frame: 'present' bool [n t]; 'single' bool [n t], no second patch at
    least a third as big; 'centre' [n t 2] (x, y), px; 'size' [n t], radius of
    the disc of equal area, px; 'colour' [n t 3], grey levels. The last three
    are NaN where the object is not present.
    Per clip, of the line fitted to the frames in which it is present:
    'start' [n 2], at the first frame; 'place' [n 2], in the middle of the
    clip; 'velocity' [n 2], px a frame; 'direction' int [n], nearest of the
    eight classes, -1 if it stands still or was found in fewer than three
    frames or half of them; 'residual' [n], root mean square over the frames of
    the distance between the centre and where the line has it at that time, %
    of the width; 'drift' [n], mean distance between the colours of any two
    frames, grey levels; 'size_variation' [n], standard deviation over mean of
    the size; 'hue' [n], of the mean colour, in turns.
  """
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      'The judge takes uint8 clips [n t h w 3], not '
      f'{videos.dtype} {videos.shape}.'
    )
  clips = []
  for video in videos:
    frames = _find(video)
    clips.append({**frames, **_describe(frames, videos.shape[3])})
  return {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}


def summarise(
  measured: dict[str, np.ndarray],
  labels: np.ndarray | None = None,
  reference: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
  """Sums up a set of clips; every value is finite.

  Args:
    measured: What `measure` says about the clips.
    labels: Motion classes [n], -1 for none; without any, no agreement.
    reference: What `measure` says about real clips; without them, no ratios.

  Returns:
    'clips', how many; 'label_agreement', share of the labelled clips whose
    direction is the label; 'residual_percent', median over clips;
    'present_share', of the clips with an object in every frame;
    'single_share', of the clips in which no frame has a second one;
    'colour_drift', the median over clips of the mean colour distance between
    two frames of a clip, over the mean distance between frames of different
    clips of the set (about 1 if frames come from anywhere), and left out for
    a single clip; 'size_variation', median over clips, 1 where undefined.
    With a reference: 'speed_ratio', of median speeds, and ratios of spreads,
    'spread_start_x', 'spread_start_y', 'spread_speed' (distance between the
    10th and 90th percentile) and 'spread_hue' (mean circular distance between
    two clips). A label alone says much about the start, as no path leaves the
    frame: 'spread_place_x' and '_y', of the middle of the path, stay small if
    all clips of a label are alike.
  """
  clips = len(measured['direction'])
  values = {'clips': float(clips)}
  if labels is not None:
    labels = np.asarray(labels)
    if labels.shape != (clips,):
      raise ValueError(f'{clips} clips have no labels of shape {labels.shape}.')
    if (labels >= 0).any():
      agree = measured['direction'] == labels
      values['label_agreement'] = float(agree[labels >= 0].mean())
  values['residual_percent'] = float(np.median(measured['residual']))
  values['present_share'] = float(measured['present'].all(1).mean())
  values['single_share'] = float(measured['single'].all(1).mean())
  if clips > 1:
    # Where no colours are known, they count as coming from anywhere; where all
    # clips have one colour, as a grey level apart.
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
  """Lays summaries out as text: a line per measure, a column per set."""
  return tables.by_set(rows, {'clips': ('clips', 1), **_TITLES, **_RATIOS})


def _find(video: np.ndarray) -> dict[str, np.ndarray]:
  """Finds the object in each frame of a clip, uint8 [t h w 3]."""
  t, h, w, _ = video.shape
  channels = np.moveaxis(video, -1, 0)
  ground = [_median(channel) for channel in channels]
  away = [
    cv2.absdiff(c, np.full_like(c, g))
    for c, g in zip(channels, ground, strict=True)
  ]
  signal = np.maximum(np.maximum(*away[:2]), away[2]).astype(np.float32)
  # One pixel's noise is no object: patches are sought in smoothed frames.
  smooth = np.stack([cv2.blur(frame, (3, 3)) for frame in signal])
  least = int(np.ceil(_AREAS[0] * h * w))
  peaks = np.partition(smooth.reshape(t, -1), -least, axis=1)[:, -least]
  usual = np.median(peaks)
  most = _AREAS[1] * h * w
  found = {
    'present': np.zeros(t, bool),
    'single': np.ones(t, bool),
    'centre': np.full([t, 2], np.nan),
    'size': np.full(t, np.nan),
    'colour': np.full([t, 3], np.nan),
  }
  # Half the usual signal, or of this frame's, should it be the stronger.
  for i in range(t):
    level = max(peaks[i], usual, _LEAST_SIGNAL)
    patches, names, stats, _ = cv2.connectedComponentsWithStats(
      (smooth[i] > 0.5 * level).astype(np.uint8), connectivity=8
    )
    areas = stats[1:, cv2.CC_STAT_AREA]
    if patches < 2 or not least <= areas.max() <= most:
      continue
    order = np.argsort(areas)[::-1]
    found['present'][i] = True
    found['single'][i] = patches == 2 or areas[order[1]] < areas[order[0]] / 3
    patch = names == order[0] + 1
    centre, radius, colour, _ = object_finder.weigh(video[i], signal[i], patch)
    found['centre'][i], found['colour'][i] = centre, colour
    found['size'][i] = radius
  if found['present'].any():
    small = found['size'] < _CHANGE**0.5 * np.nanmedian(found['size'])
    found['present'] &= ~small
    for name in ('centre', 'size', 'colour'):
      found[name][small] = np.nan
  return found


def _median(values: np.ndarray) -> int:
  """Returns the median grey level, the lower one of two."""
  counts = np.cumsum(np.bincount(values.reshape(-1), minlength=256))
  return int(np.searchsorted(counts, (counts[-1] + 1) // 2))


def _describe(frames: dict[str, np.ndarray], width: int) -> dict:
  """Describes a clip by the line of its motion and by its constancy."""
  present = frames['present']
  t = len(present)
  nowhere = np.full(2, np.nan)
  clip = {
    'start': nowhere,
    'place': nowhere,
    'velocity': nowhere,
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
  away = np.square(centre - basis @ fit).sum(-1)
  start, velocity = fit
  clip['start'], clip['velocity'] = start, velocity
  clip['place'] = start + velocity * (t - 1) / 2
  if np.hypot(*velocity) * (t - 1) >= _REST * width:
    eighth = np.arctan2(velocity[1], velocity[0]) / (np.pi / 4)
    clip['direction'] = np.array(int(np.rint(eighth)) % 8)
  clip['residual'] = 100 * np.sqrt(away.mean()) / width
  colour, size = frames['colour'][present], frames['size'][present]
  clip['drift'] = _pairs(colour).mean()
  clip['size_variation'] = size.std() / size.mean()
  clip['hue'] = object_finder.hue_of(colour.mean(0))
  return clip


def _pairs(colours: np.ndarray) -> np.ndarray:
  """Returns the distances between any two of the colours [n 3]."""
  first, second = np.triu_indices(len(colours), 1)
  return np.linalg.norm(colours[first] - colours[second], axis=-1)


def _between(colours: np.ndarray) -> float:
  """Returns the mean distance between frames of different clips [n t 3].

  Frames are compared with those at the same time in up to 63 other clips; NaN
  if no two of them have a colour.
  """
  n = len(colours)
  shifts = np.unique(np.linspace(1, n - 1, min(n - 1, 63)).astype(int))
  distances = [
    np.linalg.norm(colours - np.roll(colours, shift, axis=0), axis=-1)
    for shift in shifts
  ]
  distances = np.stack(distances)
  known = np.isfinite(distances)
  return float(distances[known].mean()) if known.any() else np.nan


def _spreads(measured: dict[str, np.ndarray]) -> dict[str, float]:
  """Returns the quantities of which `summarise` takes ratios."""
  speed = np.linalg.norm(measured['velocity'], axis=-1)
  known = np.isfinite(speed)
  if known.sum() < 2:
    return dict.fromkeys(_RATIOS, 0.0)
  start, place = measured['start'][known], measured['place'][known]
  speed, hue = speed[known], measured['hue'][known]
  first, second = np.triu_indices(len(hue), 1)
  apart = np.abs((hue[first] - hue[second] + 0.5) % 1 - 0.5)
  columns = np.column_stack([start, place, speed])
  low, high = np.percentile(columns, [10, 90], axis=0)
  values = [np.median(speed), *(high - low), apart.mean()]
  return dict(zip(_RATIOS, values, strict=True))
