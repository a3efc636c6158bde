"""Statistics of the trajectories of tracked objects.

Where an object flies freely and how far its motion is from the simulator's
laws, in px of the clip. `scale` is the shorter side of the clip over 64 px, and
`border` where its right and lower walls are, (x, y).
"""

from etils.array_types import BoolArray, FloatArray, IntArray
import numpy as np

from vdm.metrics import directions
from vdm.metrics import object_finder
from vdm.metrics import tracking

STANDING = 0.02  # Travel that is no motion, as a share of the shorter side.

REACH = 1.6  # Greatest extent of a shape in radii: 1.555, of a triangle.
_DIRECTION_FRAMES = 0.8  # Share of the frames that a direction is read from.


def unoccluded(tracks: tracking.Tracks, scale: float) -> BoolArray['k t']:
  """Returns where an object is seen and no other one is near enough to hide it.

  Args:
    tracks: of a clip.
    scale: see the module.
  """
  alone = tracks.seen()
  k = len(alone)
  for a in range(k):
    for b in range(k):
      if a != b:
        gap = np.linalg.norm(tracks.centre[a] - tracks.centre[b], axis=-1)
        reach = REACH * (tracks.size[a] + tracks.size[b]) + 2 * scale
        alone[a] &= ~(gap <= reach)  # NaN: the other one is not there.
  # An object behind another one may not be detected itself.
  hidden = tracks.count < tracks.seen().sum(0).max(initial=0)
  if k > 1:
    alone &= ~(hidden[None] & _near_hidden(tracks, scale))
  return alone


def away_from_walls(
  centre: FloatArray['t 2'],
  radius: float,
  border: IntArray['2'],
  scale: float,
) -> BoolArray[' t']:
  """Returns where an object cannot have met a wall within one step."""
  steps = np.linalg.norm(np.diff(centre, axis=0), axis=-1)
  speed = np.nanmax(steps) if np.isfinite(steps).any() else 0.0
  edge = np.minimum(centre, border - centre).min(-1)
  return edge > REACH * radius + scale + 0.6 * speed


def accelerations(
  centre: FloatArray['t 2'], free: BoolArray[' t'], gravity: float
) -> FloatArray[' s']:
  """Returns the magnitudes of accelerations in free flight, less gravity.

  They are second differences, of the steps whose three frames are free.
  """
  second = centre[2:] - 2 * centre[1:-1] + centre[:-2]
  usable = free[2:] & free[1:-1] & free[:-2]
  return np.linalg.norm(second[usable] - np.array([0.0, gravity]), axis=-1)


def hue_drift(hues: FloatArray[' t']) -> float:
  """Returns the mean deviation from the mean hue, degrees."""
  mean = np.angle(np.exp(2j * np.pi * hues).sum()) / (2 * np.pi)
  return float(360 * object_finder.hue_distance(hues, mean).mean())


def hue_switches(tracks: tracking.Tracks, alone: BoolArray['k t']) -> int:
  """Returns how often a track changes its hue between unoccluded sightings."""
  count = 0
  for hues, frames in zip(tracks.hue, alone, strict=True):
    change = object_finder.hue_distance(hues[frames][1:], hues[frames][:-1])
    count += int((change > object_finder.SAME_HUE).sum())
  return count


def direction(tracks: tracking.Tracks, side: int) -> int:
  """Returns the class of the longest track's motion, the same in both halves.

  It is -1 where the classes of the halves differ, the object stands still in
  one of them, or it is seen in too few frames.

  Args:
    tracks: of a clip.
    side: the shorter one of the frames, px.
  """
  if not len(tracks.size):
    return -1
  seen = np.flatnonzero(tracks.seen()[0])
  if len(seen) < max(3, _DIRECTION_FRAMES * tracks.size.shape[1]):
    return -1
  travel = np.diff(tracks.centre[0, seen[[0, len(seen) // 2, -1]]], axis=0)
  if (np.hypot(*travel.T) < STANDING * side).any():
    return -1
  first, second = directions.nearest(travel)
  return int(first) if first == second else -1


def vanished(tracks: tracking.Tracks, scale: float) -> BoolArray['k t']:
  """Returns where an object is not seen and no other one can be hiding it."""
  places = [_places(tracks, i) for i in range(len(tracks.size))]
  gone = ~tracks.seen()
  for a, path in enumerate(places):
    for b, other in enumerate(places):
      if a != b:
        gap = np.linalg.norm(path - other, axis=-1)
        reach = REACH * np.nanmedian(tracks.size[[a, b]], axis=-1).sum()
        gone[a] &= gap > reach + 2 * scale
  return gone


def _near_hidden(tracks, scale) -> np.ndarray:
  """Returns bool [k t]: near a place where another track is not seen."""
  k, t = tracks.size.shape
  near = np.zeros((k, t), bool)
  for b in range(k):
    seen, path = np.isfinite(tracks.size[b]), _places(tracks, b)
    for a in range(k):
      gap = np.linalg.norm(tracks.centre[a] - path, axis=-1)
      reach = REACH * (tracks.size[a] + np.nanmedian(tracks.size[b]))
      near[a] |= ~seen & (gap <= reach + 2 * scale) & (a != b)
  return near


def _places(tracks, i) -> np.ndarray:
  """Returns the path [t 2] of a track, interpolated where it is not seen."""
  seen, times = np.isfinite(tracks.size[i]), np.arange(tracks.size.shape[1])
  return np.stack(
    [
      np.interp(times, times[seen], tracks.centre[i, seen, axis])
      for axis in (0, 1)
    ],
    axis=-1,
  )
