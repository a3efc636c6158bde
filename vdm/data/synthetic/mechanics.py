"""Motion along one axis under a steady force, between elastic walls."""

from etils.array_types import FloatArray
import numpy as np


def move(
  push: float,
  force: float,
  low: float,
  high: float,
  start: float,
  times: FloatArray[' t'],
  walls: bool,
) -> tuple[FloatArray[' t'], FloatArray[' t']] | None:
  """Computes the positions and velocities of a point at some frames.

  Args:
    push: its velocity at first, px a frame.
    force: its acceleration, px a frame a frame.
    low: least position, px.
    high: greatest position, px.
    start: in [0, 1), where it starts among the possible positions: those
      between the walls, or those from which its path stays between them.
    times: 0, 1, 2, ...
    walls: whether it bounces off `low` and `high`; else it never reaches them.

  Returns:
    Positions and velocities; None if there is no such start.
  """
  free = push * times + 0.5 * force * times**2
  if not walls:
    low, high = low - free.min(), high - free.max()
    if high < low:
      return None
    return low + (high - low) * start + free, push + force * times
  if high < low:
    return None
  position, speed = low + (high - low) * start, push
  positions, speeds = [position], [speed]
  for _ in times[1:]:
    position, speed = _bounce(position, speed, force, low, high)
    positions.append(position)
    speeds.append(speed)
  return np.array(positions), np.array(speeds)


def _bounce(position, speed, force, low, high):
  """Returns position and speed a frame later, between elastic walls."""
  left = 1.0
  while True:
    end = position + speed * left + 0.5 * force * left**2
    times = [
      (time, wall)
      for side, wall in ((-1, low), (1, high))
      for time in _crossing_times(position - wall, speed, force)
      if time < left and side * (speed + force * time) > 0
    ]
    if not times:
      return min(max(end, low), high), speed + force * left
    time, position = min(times)
    speed = -(speed + force * time)
    left -= time


def _crossing_times(offset, speed, force):
  """Returns the times >= 0 at which offset + speed t + force t^2 / 2 is 0."""
  if force == 0:
    times = [-offset / speed] if speed else []
  else:
    root = speed**2 - 2 * force * offset
    if root < 0:
      return []
    times = [(-speed + sign * root**0.5) / force for sign in (-1, 1)]
  return [max(time, 0.0) for time in times if time > -1e-9]
