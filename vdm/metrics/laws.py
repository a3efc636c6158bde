"""Judges clips by the laws of the scenes in `data/scenes.py`, of any kind.

Objects are found (`objects.py`), followed (`tracks.py`) and held against what
the simulator promises: their number never changes, none comes or goes, each
keeps its colour, size and shape, flies freely with no acceleration but gravity,
leaves a wall as fast as it came, and in a clip with a label moves in that
label's direction from first to last.

True clips are not at zero: a hidden object is not found, and the sharing of an
edge's pixels leaves hundredths of a pixel. So every number is read beside that
of true clips. Lengths are pixels at 64 px.
"""

from typing import NamedTuple

import numpy as np

from vdm.common import tables
from vdm.metrics import distances
from vdm.metrics import object_finder
from vdm.metrics import tracking

# What it is called, and a factor for reading.
TITLES = {
  'clips': ('clips', 1),
  'label_agreement': ('label agreement, %', 100),
  'count_error': ('objects too many or few, a frame', 1),
  'tracked': ('followed throughout, % of the frames', 100),
  'switches': ('changes of identity, a clip', 1),
  'hue_drift': ('hue drift, degrees', 1),
  'size_variation': ('size variation, %', 100),
  'shape_variation': ('shape variation, %', 100),
  'shape_distance': ('shapes from real ones, %', 100),
  'acceleration': ('acceleration in free flight, px', 1),
  'bounce': ('error of a bounce, % of the speed', 100),
  'bounces': ('bounces, a clip', 1),
  'speed': ('speed, px a frame', 1),
  'speed_distance': ('speeds from real ones, px a frame', 1),
}

_REACH = 1.6  # Radii that a shape reaches at most: 1.555 for a triangle.
_SWITCH = 1 / 12  # Turns of hue: half of what objects of a scene differ by.
_THROUGHOUT = 0.8  # Share of a clip's frames that a direction is read from.
_REST = 0.02  # Travel in half a clip, share of the width, that is standing.
_DISTANCES = {'speed_distance': 'speed', 'shape_distance': 'kind'}
# Where there is no object to speak of, numbers that count against the clip.
_WORST = {
  'hue_drift': 90.0,
  'size_variation': 1.0,
  'shape_variation': 1.0,
  'acceleration': 6.4,
}


class World(NamedTuple):
  """The laws that the clips are under.

  Attributes:
    objects: in a scene.
    gravity: px a frame a frame, downwards, at the clips' resolution.
    walls: objects bounce off the frame's border.
  """

  objects: int = 1
  gravity: float = 0.0
  walls: bool = False


def measure(videos: np.ndarray, world: World) -> dict[str, np.ndarray]:
  """Measures each clip by itself.

  Args:
    videos: uint8 [n t h w 3].
    world: whose laws hold.

  Returns:
    Per clip [n]: 'count_error', mean over frames of how many objects are too
    many or too few; 'tracked', share of frames from first to last that the
    longest tracks cover, as many as there should be objects; 'switches',
    times that a track's hue changes by more than 30 degrees;
    'hue_drift', mean deviation of a track's hue, degrees; 'size_variation' and
    'shape_variation', standard deviation over mean, in frames in which an
    object is alone; 'acceleration', median over steps in free flight, less
    gravity; 'bounce', mean error of the velocity after a wall, as a share of
    that before, and 'bounces', how many; 'direction', the class of the motion
    in both halves of the clip, else -1. NaN where a clip gives no occasion.
    'speed' [n objects], median of a track's steps, px a frame at 64, and 'kind'
    [n objects], of its second moments over squared areas.
  """
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      'The judge takes uint8 clips [n t h w 3], not '
      f'{videos.dtype} {videos.shape}.'
    )
  width = videos.shape[3]
  clips = [
    _measure(
      tracking.link(object_finder.find(video), width, world.walls), width, world
    )
    for video in videos
  ]
  return {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}


def summarise(
  measured: dict[str, np.ndarray],
  labels: np.ndarray | None = None,
  reference: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
  """Sums up a set of clips; see `TITLES`.

  Args:
    measured: what `measure` says about the clips.
    labels: motion classes [n], -1 for none; without any, no agreement.
    reference: what `measure` says about real clips, for the distances of the
      speeds and of the shapes (a square is 4.7 % from a disc, and a triangle
      21 %).

  Returns:
    Means over clips, and medians of 'size_variation', 'shape_variation',
    'acceleration', 'bounce' and 'speed'. What no clip gave occasion to measure
    is left out.
  """
  values = {'clips': float(len(measured['count_error']))}
  if labels is not None and (np.asarray(labels) >= 0).any():
    agree = measured['direction'] == labels
    values['label_agreement'] = float(agree[np.asarray(labels) >= 0].mean())
  for name in ('count_error', 'tracked', 'switches', 'hue_drift', 'bounces'):
    values[name] = float(np.mean(measured[name]))
  for name in (
    'size_variation',
    'shape_variation',
    'acceleration',
    'bounce',
    'speed',
  ):
    known = measured[name][np.isfinite(measured[name])]
    if known.size:
      values[name] = float(np.median(known))
  if not values['bounces']:
    del values['bounces']
  if reference is not None:
    for name, source in _DISTANCES.items():
      ours, theirs = (
        x[source][np.isfinite(x[source])] for x in (measured, reference)
      )
      if theirs.size:
        ours = ours if ours.size else np.zeros(1)
        values[name] = distances.wasserstein(ours, theirs)
    if 'shape_distance' in values:
      values['shape_distance'] *= 2 * np.pi  # In shares of a disc's moment.
  return values


def table(rows: dict[str, dict[str, float]]) -> str:
  """Lays summaries out as text: a line per measure, a column per set."""
  return tables.by_set(rows, TITLES)


def _measure(tracks, width, world) -> dict[str, np.ndarray]:
  scale = width / 64
  k, t = world.objects, len(tracks.count)
  main = range(min(k, len(tracks.size)))
  seen = tracks.seen()
  alone = _alone(tracks, scale)
  drift, size, shape, pull, bounces = [], [], [], [], []
  speed, kind = np.full(k, np.nan), np.full(k, np.nan)
  for i in main:
    centre = tracks.centre[i]
    hues = tracks.hue[i][alone[i] if alone[i].any() else seen[i]]
    drift.append(_hue_drift(hues))
    for values, out in ((tracks.size, size), (tracks.shape, shape)):
      values = values[i][alone[i]]
      if len(values) >= 3:
        out.append(values.std() / values.mean())
    if alone[i].any():
      kind[i] = np.median(tracks.shape[i][alone[i]])
    steps = np.linalg.norm(np.diff(centre, axis=0), axis=-1)
    if np.isfinite(steps).any():
      speed[i] = np.nanmedian(steps) / scale
    radius = np.nanmedian(tracks.size[i])
    free = (
      alone[i]
      if not world.walls
      else alone[i] & _clear(centre, radius, width, scale)
    )
    pull += list(_accelerations(centre, free, world.gravity) / scale)
    if world.walls:
      bounces += _bounces(centre, alone[i], radius, width, scale, world.gravity)
  followed = any(seen[i].sum() >= 3 for i in main)
  values = {
    'count_error': np.abs(tracks.count - k).mean(),
    'tracked': tracks.spans()[:k].sum() / (k * t),
    'switches': float(_switches(tracks, alone)),
    'hue_drift': np.mean(drift) if drift else _WORST['hue_drift'],
    'size_variation': np.mean(size) if size else np.nan,
    'shape_variation': np.mean(shape) if shape else np.nan,
    'acceleration': np.median(pull) if pull else np.nan,
    'bounce': np.mean(bounces) if bounces else np.nan,
    'bounces': float(len(bounces)),
    'direction': _direction(tracks, width) if k == 1 else -1,
    'speed': speed,
    'kind': kind,
  }
  if not followed:
    values.update(_WORST)
  return {name: np.asarray(value) for name, value in values.items()}


def _alone(tracks, scale) -> np.ndarray:
  """Returns bool [k t]: seen, and no other object so near as to hide it."""
  alone = tracks.seen()
  k = len(alone)
  for a in range(k):
    for b in range(k):
      if a != b:
        gap = np.linalg.norm(tracks.centre[a] - tracks.centre[b], axis=-1)
        reach = _REACH * (tracks.size[a] + tracks.size[b]) + 2 * scale
        alone[a] &= ~(gap <= reach)  # NaN: the other is not there.
  # What hides behind another may not be seen itself.
  hidden = tracks.count < tracks.seen().sum(0).max(initial=0)
  if k > 1:
    alone &= ~(hidden[None] & _missing_near(tracks, scale))
  return alone


def _missing_near(tracks, scale) -> np.ndarray:
  """Returns bool [k t]: near to where another track is not seen for a while."""
  k, t = tracks.size.shape
  near = np.zeros((k, t), bool)
  times = np.arange(t)
  for b in range(k):
    seen = np.isfinite(tracks.size[b])
    path = np.stack(
      [
        np.interp(times, times[seen], tracks.centre[b, seen, i]) for i in (0, 1)
      ],
      axis=-1,
    )
    for a in range(k):
      gap = np.linalg.norm(tracks.centre[a] - path, axis=-1)
      reach = _REACH * (tracks.size[a] + np.nanmedian(tracks.size[b]))
      near[a] |= ~seen & (gap <= reach + 2 * scale) & (a != b)
  return near


def _clear(centre, radius, width, scale) -> np.ndarray:
  """Returns bool [t]: too far from every wall to have met it in a step."""
  steps = np.linalg.norm(np.diff(centre, axis=0), axis=-1)
  speed = np.nanmax(steps) if np.isfinite(steps).any() else 0.0
  edge = np.minimum(centre, width - centre).min(-1)
  return edge > _REACH * radius + scale + 0.6 * speed


def _accelerations(centre, free, gravity) -> np.ndarray:
  """Returns the lengths of second differences in free flight, less gravity."""
  second = centre[2:] - 2 * centre[1:-1] + centre[:-2]
  usable = free[2:] & free[1:-1] & free[:-2]
  return np.linalg.norm(second[usable] - np.array([0.0, gravity]), axis=-1)


def _bounces(centre, alone, radius, width, scale, gravity) -> list[float]:
  """Returns the errors of the velocity after each wall that was met.

  From the step that ends a frame before the turn to the one that begins a frame
  after it three frames pass. Along the wall the velocity gains gravity for that
  long; across it the energy stays: v'^2 = v^2 + 2 g (y' - y), turned round.
  """
  errors = []
  steps = np.diff(centre, axis=0)
  for axis in (0, 1):
    for i in range(2, len(centre) - 2):
      if not alone[i - 2 : i + 3].all():
        continue
      turn = steps[i - 1, axis] * steps[i, axis] < 0
      side = steps[i - 2, axis] > 0
      gap = width - centre[i, axis] if side else centre[i, axis]
      if not turn or gap > _REACH * radius + 3 * scale:
        continue
      along = steps[i - 2 : i + 2, 1 - axis]
      if (np.diff(np.sign(along)) != 0).any():
        continue  # A corner, or the top of its flight.
      before, after = steps[i - 2], steps[i + 1]
      aim = before.copy()
      aim[axis] = -before[axis]
      if axis == 1 and gravity:
        fallen = centre[i + 1] + centre[i + 2] - centre[i - 2] - centre[i - 1]
        energy = before[1] ** 2 + gravity * fallen[1]
        aim[1] = -np.sign(before[1]) * np.sqrt(max(energy, 0.0))
      elif axis == 0:
        aim[1] += 3 * gravity
      size = np.linalg.norm(before)
      errors.append(float(np.linalg.norm(after - aim) / max(size, 1e-6)))
  return errors


def _hue_drift(hues: np.ndarray) -> float:
  """Returns the mean deviation from the mean hue, degrees."""
  mean = np.angle(np.exp(2j * np.pi * hues).sum()) / (2 * np.pi)
  return float(360 * object_finder.hue_apart(hues, mean).mean())


def _switches(tracks, alone) -> int:
  """Returns how often a track changes its hue between two clear sights."""
  count = 0
  for k, hues in enumerate(tracks.hue):
    hues = hues[alone[k]]
    count += int((object_finder.hue_apart(hues[1:], hues[:-1]) > _SWITCH).sum())
  return count


def _direction(tracks, width) -> int:
  """Returns the class of the longest track's motion in both of its halves."""
  if not len(tracks.size):
    return -1
  seen = np.flatnonzero(tracks.seen()[0])
  if len(seen) < max(3, _THROUGHOUT * tracks.size.shape[1]):
    return -1
  ends = tracks.centre[0, seen[[0, len(seen) // 2, -1]]]
  ways = np.diff(ends, axis=0)
  if (np.hypot(*ways.T) < _REST * width).any():
    return -1
  eighths = np.rint(np.arctan2(ways[:, 1], ways[:, 0]) / (np.pi / 4))
  first, second = eighths.astype(int) % 8
  return int(first) if first == second else -1
