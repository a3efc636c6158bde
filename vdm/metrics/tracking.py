"""Follows objects from frame to frame.

Each track predicts where its object is next, at constant velocity; objects are
given to tracks so that distances and differences of hue are least in sum (the
Hungarian method). What lies beyond the gate begins a track of its own: a jump
breaks a track, and so does an object that comes back, after having been hidden,
in another colour.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize

from vdm.metrics import object_finder

_GATE = 0.12  # Of the width: how far from its prediction an object may be.
_PATIENCE = 6  # Frames that an object may be hidden.
_SIGNS = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])
_SAME_HUE = 1 / 12  # Turns (30 degrees), half of what objects differ by.


class Tracks(NamedTuple):
  """The tracks of one clip of t frames, NaN where an object is not seen.

  Attributes:
    centre: [k t 2] (x, y), px.
    size: [k t] px.
    colour: [k t 3] grey levels.
    hue: [k t] turns.
    shape: [k t], see `objects.Objects`.
    count: [t] objects found in each frame, tracked or not.
  """

  centre: np.ndarray
  size: np.ndarray
  colour: np.ndarray
  hue: np.ndarray
  shape: np.ndarray
  count: np.ndarray

  def seen(self) -> np.ndarray:
    """Returns bool [k t]."""
    return np.isfinite(self.size)

  def spans(self) -> np.ndarray:
    """Returns [k] frames from the first to the last that each is seen in."""
    seen = self.seen()
    t = seen.shape[1]
    return t - seen.argmax(1) - seen[:, ::-1].argmax(1)


def link(
  frames: list[object_finder.Objects], width: int, walls: bool = False
) -> Tracks:
  """Returns the tracks of a clip, the longest first.

  Args:
    frames: what `objects.find` says of each frame.
    width: of the frames, px.
    walls: objects may turn at the frame's border: each component of the
      velocity may have changed its sign.
  """
  t = len(frames)
  # Where paths must cross in few frames, objects are as much faster.
  gate = _GATE * width * max(1.0, 15 / max(t - 1, 1))
  tracks = []  # Each a list of (frame, row of that frame's objects).
  for i, found in enumerate(frames):
    live = [track for track in tracks if i - track[-1][0] <= _PATIENCE + 1]
    taken = set()
    for track, row in _assign(live, frames, i, gate, walls):
      track.append((i, row))
      taken.add(row)
    tracks += [[(i, r)] for r in range(len(found.size)) if r not in taken]
  tracks.sort(key=lambda track: track[0][0] - track[-1][0])
  return _stack(tracks, frames)


def _assign(live, frames, i, gate, walls):
  """Yields (track, row) for the objects of frame i that go on with a track."""
  found = frames[i]
  if not live or not len(found.size):
    return
  cost = np.full((len(live), len(found.size)), np.inf)
  for k, track in enumerate(live):
    frame, row = track[-1]
    gap = i - frame
    last = frames[frame].centre[row]
    velocity = _velocity(track, frames)
    ways = gap * velocity * (_SIGNS if walls else _SIGNS[:1])
    away = np.linalg.norm(found.centre - (last + ways)[:, None], axis=-1).min(0)
    hue = object_finder.hue_apart(found.hue, frames[frame].hue[row])
    allowed = away <= gate * (1 + (gap - 1) / 2)
    if gap > 1:
      allowed &= hue <= _SAME_HUE
    cost[k, allowed] = (away / gate + 2 * hue)[allowed]
  # Whatever is not allowed costs more than all that is.
  finite = np.where(np.isfinite(cost), cost, 1e3)
  for k, row in zip(*optimize.linear_sum_assignment(finite), strict=True):
    if np.isfinite(cost[k, row]):
      yield live[k], row


def _velocity(track, frames) -> np.ndarray:
  if len(track) < 2:
    return np.zeros(2)
  (a, row_a), (b, row_b) = track[-2:]
  return (frames[b].centre[row_b] - frames[a].centre[row_a]) / (b - a)


def _stack(tracks, frames) -> Tracks:
  k, t = len(tracks), len(frames)
  arrays = {
    name: np.full((k, t, *dims), np.nan)
    for name, dims in {
      'centre': (2,),
      'size': (),
      'colour': (3,),
      'hue': (),
      'shape': (),
    }.items()
  }
  for j, track in enumerate(tracks):
    for frame, row in track:
      for name, array in arrays.items():
        array[j, frame] = getattr(frames[frame], name)[row]
  return Tracks(**arrays, count=np.array([len(f.size) for f in frames]))
