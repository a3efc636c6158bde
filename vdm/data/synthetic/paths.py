"""Draws the objects of a scene and the paths on which they move.

Lengths and speeds are given at 64 px and 16 frames and scale with the shorter
side of the frame. In a longer window objects are slower, so that their paths
are no longer (unless walls hold them in), and where they have to cross in a
shorter one they are faster.
"""

import dataclasses

from etils.array_types import FloatArray, IntArray
import numpy as np

from vdm.common import shapes
from vdm.common import sizes
from vdm.data.synthetic import mechanics
from vdm.data.synthetic import scene_spec

MARGIN = 1.0  # Px kept clear of the walls: anti-aliasing reaches that far.

# At 64 px and 16 frames.
_RADIUS = (6.0, 10.0)  # Of the disc of equal area, px.
_SPEED = (1.4, 2.2)  # Px a frame.
_GRAVITY = 0.2  # Px a frame a frame.
_SPIN = (2.0, 6.0)  # Degrees a frame, either way round.
_SHRINK = (1.0, 0.8, 0.7)  # Of the radius, with one, two, three objects.
_ATTEMPTS = 20_000  # Draws of a scene before its options count as impossible.

_DIAGONAL = np.sqrt(0.5)
# fmt: off
_DIRECTIONS = np.array([
    [1, 0], [_DIAGONAL, _DIAGONAL], [0, 1], [-_DIAGONAL, _DIAGONAL],
    [-1, 0], [-_DIAGONAL, -_DIAGONAL], [0, -1], [_DIAGONAL, -_DIAGONAL],
])
# fmt: on


@dataclasses.dataclass(frozen=True)
class Paths:
  """The k objects of one scene over t frames; the first is the nearest."""

  shape: IntArray[' k']
  size: FloatArray[' k']
  centre: FloatArray['t k 2']  # (x, y), px.
  velocity: FloatArray['t k 2']  # Px a frame.
  angle: FloatArray['t k']  # Clockwise, radians.


def gravity(
  size: sizes.Size, frames: int, walls: bool, crossings: bool
) -> float:
  """Returns the downward acceleration under 'gravity', px a frame a frame."""
  slow = _slowness(frames, walls, crossings)
  return _GRAVITY * min(size) / 64 * slow**2


def draw(
  random: np.random.Generator, direction: int, spec: scene_spec.SceneSpec
) -> Paths:
  """Draws objects until all fit in the frame, and keep apart or cross.

  Args:
    random: source of all draws.
    direction: class of the first object's direction.
    spec: of the scene.

  Raises:
    ValueError: no such scene was found.
  """
  for _ in range(_ATTEMPTS):
    objects = []
    for k in range(spec.objects):
      drawn = _draw_object(random, direction if k == 0 else None, spec)
      if drawn is None:
        break
      objects.append(drawn)
    else:
      shape, size, *moving = zip(*objects)
      paths = Paths(
        np.array(shape), np.array(size), *(np.stack(m, axis=1) for m in moving)
      )
      if len(objects) == 1 or _keep_apart_or_cross(paths, spec.crossings):
        return paths
  raise ValueError(
    f'No scene of {spec.objects} objects in {spec.frames} frames of '
    f'{sizes.text(spec.size)} px was found: ask for fewer objects or frames, '
    'or for walls.'
  )


def _slowness(frames: int, walls: bool, crossings: bool) -> float:
  """Returns the speed of objects as a share of that in 16 frames."""
  slow = 15 / max(frames - 1, 1)
  slow = slow if crossings else min(1.0, slow)
  return max(1.0, slow) if walls else slow


def _draw_object(random, direction: int | None, spec: scene_spec.SceneSpec):
  """Returns shape, size, centre, velocity, angle; None if it does not fit."""
  limits = spec.frames, spec.walls, spec.crossings
  slow, scale = _slowness(*limits), min(spec.size) / 64
  fall = 0.0
  if spec.motion == 'gravity':
    fall = gravity(spec.size, *limits)
  times = np.arange(spec.frames, dtype=np.float64)
  shape = int(random.random() * len(shapes.NAMES))
  size = _uniform(random, *_RADIUS) * _SHRINK[spec.objects - 1] * scale
  speed = _uniform(random, *_SPEED) * scale * slow
  if direction is None:
    direction = int(random.random() * len(_DIRECTIONS))
  turn = _uniform(random, -1.0, 1.0) * np.pi
  spin = _uniform(random, *_SPIN) * np.sign(turn) * slow * np.pi / 180
  start = random.random(2)
  before, after = shapes.extent(shape, size, spec.rotation)
  along = [
    mechanics.move(
      speed * _DIRECTIONS[direction, axis],
      (0.0, fall)[axis],
      before[axis] + MARGIN,
      spec.size[1 - axis] - after[axis] - MARGIN,
      start[axis],
      times,
      spec.walls,
    )
    for axis in (0, 1)
  ]
  if any(motion is None for motion in along):
    return None
  centre, velocity = np.stack(along, axis=-1)
  angle = turn + spin * times if spec.rotation else np.zeros(len(times))
  return shape, size, centre, velocity, angle


def _uniform(random, low, high):
  return low + (high - low) * random.random()


def _keep_apart_or_cross(paths: Paths, crossings: bool) -> bool:
  """Returns whether no objects meet or, with `crossings`, whether two cross."""
  radius = [shapes.circumradius(*x) for x in zip(paths.shape, paths.size)]
  for a in range(len(radius)):
    for b in range(a):
      gap = np.linalg.norm(paths.centre[:, a] - paths.centre[:, b], axis=-1)
      apart = gap > radius[a] + radius[b] + 2 * MARGIN
      if not crossings:
        if not apart.all():
          return False
      # Well inside the nearer one's inscribed circle, whatever its shape.
      elif (
        apart[0] and apart[-1] and gap.min() < 0.4 * paths.size[[a, b]].min()
      ):
        return True
  return not crossings
