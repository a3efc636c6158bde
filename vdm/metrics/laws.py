"""Compares clips with the simulator's laws, for all kinds of synthetic scenes.

Objects are detected (`object_finder.py`) and tracked (`tracking.py`). In scenes
of `data/synthetic/scenes.py` their number is constant, each keeps its colour,
size and shape, flies freely with no acceleration but gravity, leaves a wall
with the speed at which it came, and in a clip with a label moves in that
label's direction from first to last.

True clips do not score zero: a hidden object is not detected, and anti-aliasing
leaves errors of hundredths of a pixel. Compare every number with that of true
clips. Lengths are pixels where the frame's shorter side has 64.
"""

import functools
from typing import NamedTuple

from etils.array_types import IntArray, ui8
import numpy as np

from vdm.common import shapes
from vdm.common import tables
from vdm.metrics import bounces
from vdm.metrics import crossings
from vdm.metrics import directions
from vdm.metrics import distances
from vdm.metrics import object_finder
from vdm.metrics import persistence
from vdm.metrics import rgb_clips
from vdm.metrics import tracking
from vdm.metrics import trajectories

# Title of each number, and a factor for printing.
TITLES = {
  'clips': ('clips', 1),
  # What persists throughout a clip, of every object: see `persistence`.
  'shape_kept': ('clips that keep their shapes, %', 100),
  'size_kept': ('clips that keep sizes within 3 %, %', 100),
  'hue_kept': ('clips that keep hues within 5 degrees, %', 100),
  'path_kept': ('clips without trembling, %', 100),
  'number_kept': ('clips where nothing appears or vanishes, %', 100),
  # Of two objects that cross: see `crossings`.
  'meets': ('clips whose objects meet, %', 100),
  'crosses': ('clips whose objects cross and come out unswapped, %', 100),
  'discs': ('objects that are mostly discs, %', 100),
  'squares': ('objects that are mostly squares, %', 100),
  'triangles': ('objects that are mostly triangles, %', 100),
  'clear': ('clearness of shapes, 1 is perfect', 1),
  'label_agreement': ('label agreement in both halves, %', 100),
  'count_error': ('object count error, per frame', 1),
  'tracked': ('tracked throughout, % of the frames', 100),
  'switches': ('changes of identity, per clip', 1),
  'hue_drift': ('hue drift, degrees', 1),
  'size_variation': ('size variation while in full view, %', 100),
  'shape_variation': ('shape variation while in full view, %', 100),
  'shape_distance': ('shape distance from real, %', 100),
  'acceleration': ('acceleration in free flight, px', 1),
  'bounce': ('error of a bounce, % of the speed', 100),
  'bounces': ('bounces, per clip', 1),
  'on_time': ('bounces within a frame of when they are due, %', 100),
  'speed': ('speed, px per frame', 1),
  'speed_distance': ('speed distance from real, px per frame', 1),
}

_MEANS = (
  *persistence.KEPT,
  *crossings.NAMES,
  'clear',
  'count_error',
  'tracked',
  'switches',
  'hue_drift',
  'bounces',
  'on_time',
)
_MEDIANS = (
  'size_variation',
  'shape_variation',
  'acceleration',
  'bounce',
  'speed',
)
# Distances between distributions, and of which measure.
DISTANCES = {'speed_distance': 'speed', 'shape_distance': 'moment'}
# Of clips without an object: as bad as the worst.
_WORST = {
  'hue_drift': 90.0,
  'size_variation': 1.0,
  'shape_variation': 1.0,
  'acceleration': 6.4,
}


class World(NamedTuple):
  """The options of the simulator that the laws depend on.

  Attributes:
    objects: number of objects of a scene.
    gravity: px per frame^2, downwards, at the clips' resolution.
    walls: objects bounce off the frame's border.
    turning: squares and triangles need not be upright.
    crossings: the paths of two objects cross.
  """

  objects: int = 1
  gravity: float = 0.0
  walls: bool = False
  turning: bool = False
  crossings: bool = False


def measure(videos: ui8['n t h w 3'], world: World) -> dict[str, np.ndarray]:
  """Measures each clip independently.

  Args:
    videos: the clips.
    world: the options of their scenes.

  Returns:
    Per clip [n]: 'count_error', mean error of the number of objects over the
    frames; 'tracked', share of the frames from first to last that the longest
    tracks cover, as many tracks as there should be objects; 'switches', times
    that a track's hue changes by more than 30 degrees; 'hue_drift', mean
    deviation of a track's hue, degrees; 'size_variation' and 'shape_variation',
    standard deviation over mean, in frames in which an object is unoccluded;
    'acceleration', median over steps in free flight, less gravity; 'bounce',
    mean relative error of the velocity after a wall, 'bounces', their number,
    and 'on_time', the share of those that are due or happen, see
    `bounces.timing_errors`; 'direction', the class of the motion in both halves
    of the clip, else -1. NaN where it is undefined.
    Per object [n k]: 'speed', median of a track's steps, px per frame at 64 px;
    'moment', median of the second moments over squared areas; 'kind', the
    most frequent shape, an index into `shapes.NAMES`.
    Per clip [n], 1 or 0: what persists, see `persistence`, and whether two
    objects cross, see `crossings`.
  """
  return rgb_clips.measure_each(
    functools.partial(_measure, world=world), videos
  )


def summarise(
  measured: dict[str, np.ndarray],
  labels: IntArray[' n'] | None = None,
  reference: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
  """Summarises a set of clips; see `TITLES`.

  Args:
    measured: `measure` of the clips.
    labels: motion classes, -1 for none; if none, no label agreement.
    reference: `measure` of real clips, for the distances of speeds and of
      shapes (4.7 % between a square and a disc, 21 % to a triangle).

  Returns:
    Means over clips, and medians of 'size_variation', 'shape_variation',
    'acceleration', 'bounce' and 'speed'. What no clip defines is left out.
  """
  values = {'clips': float(len(measured['count_error']))}
  agreement = directions.agreement(measured['direction'], labels)
  if agreement is not None:
    values['label_agreement'] = agreement
  for names, statistic in ((_MEANS, np.mean), (_MEDIANS, np.median)):
    for name in names:
      known = measured[name][np.isfinite(measured[name])]
      if known.size:
        values[name] = float(statistic(known))
  kinds = measured['kind'][np.isfinite(measured['kind'])]
  for i, name in enumerate(shapes.NAMES):
    values[f'{name}s'] = float((kinds == i).sum() / max(kinds.size, 1))
  if not values['bounces']:
    del values['bounces']
  if reference is not None:
    for name, source in DISTANCES.items():
      ours, theirs = (
        x[source][np.isfinite(x[source])] for x in (measured, reference)
      )
      if theirs.size:
        ours = ours if ours.size else np.zeros(1)
        values[name] = distances.wasserstein(ours, theirs)
    if 'shape_distance' in values:
      values['shape_distance'] *= 2 * np.pi  # As a share of a disc's moment.
  return values


def table(rows: dict[str, dict[str, float]]) -> str:
  """Formats summaries {set: numbers} as text, a column per set."""
  return tables.by_set(rows, TITLES)


def _measure(video: np.ndarray, world: World) -> dict[str, np.ndarray]:
  border = np.array(video.shape[2:0:-1])  # (x, y), px.
  side = border.min()
  scale = side / 64
  found = object_finder.find(video, world.turning)
  tracks = tracking.link(found, side, world.walls)
  k, t = world.objects, len(tracks.count)
  seen = tracks.seen()
  alone = trajectories.unoccluded(tracks, scale)
  drift, size, shape, residual, speeds, late = [], [], [], [], [], []
  speed, moment = np.full(k, np.nan), np.full(k, np.nan)
  objects = range(min(k, len(tracks.size)))
  for i in objects:
    centre, free = tracks.centre[i], alone[i]
    hues = tracks.hue[i][free if free.any() else seen[i]]
    drift.append(trajectories.hue_drift(hues))
    for values, out in ((tracks.size, size), (tracks.shape, shape)):
      values = values[i][free]
      if len(values) >= 3:
        out.append(values.std() / values.mean())
    if free.any():
      moment[i] = np.median(tracks.shape[i][free])
    steps = np.linalg.norm(np.diff(centre, axis=0), axis=-1)
    if np.isfinite(steps).any():
      speed[i] = np.nanmedian(steps) / scale
    if world.walls:
      place = (np.nanmedian(tracks.size[i]), border, scale)
      speeds += bounces.speed_errors(centre, free, *place, world.gravity)
      if not world.turning:  # Where its outline is says nothing of its reach.
        late += bounces.timing_errors(
          centre,
          tracks.reach[i],
          free,
          border,
          scale,
          axes=(0,) if world.gravity else (0, 1),
        )
      free = free & trajectories.away_from_walls(centre, *place)
    change = trajectories.accelerations(centre, free, world.gravity)
    residual += list(change / scale)
  values = {
    'count_error': np.abs(tracks.count - k).mean(),
    'tracked': tracks.spans()[:k].sum() / (k * t),
    'switches': float(trajectories.hue_switches(tracks, alone)),
    'hue_drift': np.mean(drift) if drift else _WORST['hue_drift'],
    'size_variation': np.mean(size) if size else np.nan,
    'shape_variation': np.mean(shape) if shape else np.nan,
    'acceleration': np.median(residual) if residual else np.nan,
    'bounce': np.mean(speeds) if speeds else np.nan,
    'bounces': float(len(speeds)),
    'on_time': np.mean(np.abs(late) <= bounces.ON_TIME) if late else np.nan,
    'direction': trajectories.direction(tracks, side) if k == 1 else -1,
    'speed': speed,
    'moment': moment,
  }
  if not any(seen[i].sum() >= 3 for i in objects):
    values.update(_WORST)
  values |= dict.fromkeys(crossings.NAMES, np.nan)
  if world.crossings and k == 2 and not world.walls:
    values |= crossings.measure(found, scale, world.gravity)
  values |= persistence.measure(tracks, alone, k, scale, values['acceleration'])
  return {name: np.asarray(value) for name, value in values.items()}
