"""Whether objects leave the walls as the simulator's laws say.

A wall is a pixel before the border: there an outline turns back. The laws start
anew from what a clip shows before each bounce, so that a bounce is not judged
by the errors before it. Lengths are px of the clip, and `scale` is its shorter
side over 64 px.
"""

from collections.abc import Iterator

from etils.array_types import BoolArray, FloatArray, IntArray
import numpy as np

from vdm.metrics import trajectories

ON_TIME = 1.0  # Frames that a bounce may be off.

_MARGIN = 1.0  # Px from a wall to the border, in frames of all sizes.
_TURN = 1.0  # Px by which an object has come back when it has turned.
_MOVING = 0.2  # Px a frame: along a wall objects tremble.
_FITTED = 4  # Frames of a state, at most: its place and speed are a line's.
_LEAST = 3  # Frames, at least.


def timing_errors(
  centre: FloatArray['t 2'],
  reach: FloatArray['t 2 2'],
  alone: BoolArray[' t'],
  border: IntArray['2'],
  scale: float,
  axes: tuple[int, ...] = (0, 1),
) -> list[float]:
  """Returns how many frames too late each bounce off a wall is.

  Lines through the frames before and after it cross when it happens. It is due
  when the outline reaches the wall on the line before it. An object that stays
  at a wall or leaves the frame has missed a bounce: it is infinitely late. A
  bounce with fewer than three frames on either side is not judged.

  Args:
    centre: of an object, NaN where it is not seen.
    reach: of its outline, see `object_finder.Objects`.
    alone: frames in which it is seen and nothing else is near it.
    border: where the right and lower border are, (x, y).
    scale: see the module.
    axes: 0: x, 1: y; those in which nothing pulls.
  """
  times = np.flatnonzero(alone)
  errors = []
  for axis in axes:
    place = centre[times, axis]
    gaps = (
      place - reach[times, 0, axis] - _MARGIN,
      border[axis] - _MARGIN - place - reach[times, 1, axis],
    )
    turns = [*_turns(place, _TURN * scale)]
    for start, turn, stop in zip(turns, turns[1:], turns[2:] + [None]):
      gap = gaps[int(place[turn] > place[start])]
      if stop is None:
        due = _first_due(times, gap, start, scale)
        # Time enough to come back from the wall.
        if due is not None and times[-1] - due >= _LEAST:
          errors.append(np.inf)
        continue
      before = slice(max(start + 1, turn - _FITTED), turn)
      after = slice(turn + 1, min(stop, turn + 1 + _FITTED))
      if min(_length(before), _length(after)) < _LEAST:
        continue
      come, gone = (_line(times[x], place[x]) for x in (before, after))
      due = _contact(times[before], gap[before], scale)
      if due is None:  # It drifted, and turned in the middle of nothing.
        errors.append(np.inf)
      else:
        happened = (gone[1] - come[1]) / (come[0] - gone[0])
        errors.append(float(happened - due))
  return errors


def speed_errors(
  centre: FloatArray['t 2'],
  alone: BoolArray[' t'],
  radius: float,
  border: IntArray['2'],
  scale: float,
  gravity: float,
) -> list[float]:
  """Returns the relative error of the velocity after each bounce off a wall.

  Between the step that ends a frame before the bounce and the step that starts
  a frame after it lie three frames. Along the wall the velocity gains gravity
  for that long. Across it the energy is conserved, v'^2 = v^2 + 2 g (y' - y),
  and the sign changes.
  """
  errors = []
  steps = np.diff(centre, axis=0)
  for axis in (0, 1):
    for i in range(2, len(centre) - 2):
      if not alone[i - 2 : i + 3].all():
        continue
      turns = steps[i - 1, axis] * steps[i, axis] < 0
      side = steps[i - 2, axis] > 0
      gap = border[axis] - centre[i, axis] if side else centre[i, axis]
      if not turns or gap > trajectories.REACH * radius + 3 * scale:
        continue
      along = steps[i - 2 : i + 2, 1 - axis]
      if (np.diff(np.sign(along)) != 0).any():
        continue  # A corner, or the top of a trajectory.
      before, after = steps[i - 2], steps[i + 1]
      expected = before.copy()
      expected[axis] = -before[axis]
      if axis == 1 and gravity:
        fallen = centre[i + 1] + centre[i + 2] - centre[i - 2] - centre[i - 1]
        energy = before[1] ** 2 + gravity * fallen[1]
        expected[1] = -np.sign(before[1]) * np.sqrt(max(energy, 0.0))
      elif axis == 0:
        expected[1] += 3 * gravity
      speed = np.linalg.norm(before)
      errors.append(float(np.linalg.norm(after - expected) / max(speed, 1e-6)))
  return errors


def _turns(place, least) -> Iterator[int]:
  """Yields the first index, those where the way changes, and the last one.

  Of an object that does not move there is none.

  Args:
    place: positions along an axis.
    least: how far back is a change of the way and no trembling, px.
  """
  way, turn = 0.0, 0
  for i in range(1, len(place)):
    step = place[i] - place[turn]
    if not way:
      if abs(step) > least:
        yield 0
        way, turn = np.sign(step), i
    elif way * step >= 0:
      turn = i
    elif abs(step) > least:
      yield turn
      way, turn = -way, i
  if way:
    yield len(place) - 1


def _length(part: slice) -> int:
  return part.stop - part.start


def _line(times, values) -> tuple[float, float]:
  """Returns slope and value at time 0 of the line of least squares."""
  slope, offset = np.polyfit(times, values, 1)
  return float(slope), float(offset)


def _contact(times, gap, scale) -> float | None:
  """Returns when a gap closes at its present rate; None: it does not."""
  slope, offset = _line(times, gap)
  return -offset / slope if slope < -_MOVING * scale else None


def _first_due(times, gap, start, scale) -> float | None:
  """Returns the first time at which a wall is reached within a frame."""
  for stop in range(start + 1 + _LEAST, len(times) + 1):
    part = slice(max(start + 1, stop - _FITTED), stop)
    due = _contact(times[part], gap[part], scale)
    if due is not None and due <= times[stop - 1] + 1:
      return due
  return None
