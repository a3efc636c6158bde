"""Tracks objects from frame to frame.

Each track predicts the next position of its object at constant velocity.
Objects are assigned to tracks so that the sum of distances and hue differences
is least (the Hungarian method). An object beyond the gate starts a new track: a
jump ends a track, and so does an object that was hidden and comes back in
another colour.
"""

from collections.abc import Iterator
from typing import NamedTuple

from etils.array_types import BoolArray, FloatArray, IntArray
import numpy as np

from vdm.metrics import object_finder

_GATE = 0.12  # Greatest distance from a prediction, as a share of the side.
_PATIENCE = 6  # Frames that an object may be hidden.
_SIGNS = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])
_DIMS = {
  'centre': (2,),
  'reach': (2, 2),
  **dict.fromkeys(('size', 'hue', 'shape', 'kind', 'clear'), ()),
}


class Tracks(NamedTuple):
  """The k tracks of a clip of t frames, NaN where an object is not seen.

  Attributes:
    centre: (x, y), px.
    size: px.
    hue: turns.
    shape: see `object_finder.Objects`, like the next two.
    kind: an index, as a float.
    clear: see `shape_names`.
    reach: px, see `object_finder.Objects`.
    count: objects found in each frame, tracked or not.
  """

  centre: FloatArray['k t 2']
  size: FloatArray['k t']
  hue: FloatArray['k t']
  shape: FloatArray['k t']
  kind: FloatArray['k t']
  clear: FloatArray['k t']
  reach: FloatArray['k t 2 2']
  count: IntArray[' t']

  def seen(self) -> BoolArray['k t']:
    """Returns in which frames each object is seen."""
    return np.isfinite(self.size)

  def spans(self) -> IntArray[' k']:
    """Returns the number of frames from the first to the last sighting."""
    seen = self.seen()
    t = seen.shape[1]
    return t - seen.argmax(1) - seen[:, ::-1].argmax(1)


def link(
  frames: list[object_finder.Objects], side: int, walls: bool = False
) -> Tracks:
  """Returns the tracks of a clip, the longest first.

  Args:
    frames: `object_finder.find` of the clip.
    side: the shorter one of the frames, px.
    walls: objects may bounce off the border: each component of the velocity may
      have changed its sign.
  """
  t = len(frames)
  # Objects whose paths must cross in fewer frames are that much faster.
  gate = _GATE * side * max(1.0, 15 / max(t - 1, 1))
  tracks = []  # Each is a list of (frame, row of that frame's objects).
  for i, found in enumerate(frames):
    live = [track for track in tracks if i - track[-1][0] <= _PATIENCE + 1]
    taken = set()
    for track, row in _assign(live, frames, i, gate, walls):
      track.append((i, row))
      taken.add(row)
    tracks += [[(i, r)] for r in range(len(found.size)) if r not in taken]
  tracks.sort(key=lambda track: track[0][0] - track[-1][0])
  return _stack(tracks, frames)


def _assign(live, frames, i, gate, walls) -> Iterator[tuple[list, int]]:
  """Yields (track, row) for the objects of frame i that continue a track."""
  found = frames[i]
  if not live or not len(found.size):
    return
  cost = np.full((len(live), len(found.size)), np.inf)
  for k, track in enumerate(live):
    frame, row = track[-1]
    gap = i - frame
    last = frames[frame].centre[row]
    steps = gap * _velocity(track, frames) * (_SIGNS if walls else _SIGNS[:1])
    predicted = (last + steps)[:, None]
    distance = np.linalg.norm(found.centre - predicted, axis=-1).min(0)
    hue = object_finder.hue_distance(found.hue, frames[frame].hue[row])
    allowed = distance <= gate * (1 + (gap - 1) / 2)
    if gap > 1:
      allowed &= hue <= object_finder.SAME_HUE
    cost[k, allowed] = (distance / gate + 2 * hue)[allowed]
  # Not at the top: a sixth of what starting to train imports, by time.
  from scipy import optimize

  # What is not allowed costs more than everything that is.
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
  arrays = {name: np.full((k, t, *d), np.nan) for name, d in _DIMS.items()}
  for j, track in enumerate(tracks):
    for frame, row in track:
      for name, array in arrays.items():
        array[j, frame] = getattr(frames[frame], name)[row]
  return Tracks(**arrays, count=np.array([len(f.size) for f in frames]))
