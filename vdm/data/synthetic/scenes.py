"""The synthetic world: coloured shapes that move by known rules.

A scene is a pure function of (seed, index) and of the options, and comes with
the exact truth of every frame, so that what a model has learned about motion
and constancy can be measured rather than guessed.

Coordinates are pixels, x right and y down, over a frame that spans
[0, width] x [0, height]: the middle of the top left pixel is (0.5, 0.5).
Motion class k moves at 45 k degrees, hence clockwise on the screen.

Lengths and speeds are given at 64 px and 16 frames and scale with the
resolution. In a longer window objects are slower, so that their paths are no
longer (unless walls hold them in), and where they have to cross in a shorter
one they are faster. Pixels are anti-aliased by the distance of
their middle from the outline, over one pixel: the ramp is symmetric about the
outline, so area and centroid of a shape are those of the truth.

Only uniform doubles of PCG64 are drawn, and arithmetic is float64 until the
pixels are rounded: neither the platform nor numpy's release changes a scene.
"""

import dataclasses

import numpy as np

from vdm.data.synthetic import mechanics

LABEL_NAMES = (
  'right',
  'down-right',
  'down',
  'down-left',
  'left',
  'up-left',
  'up',
  'up-right',
)
SHAPE_NAMES = ('disc', 'square', 'triangle')
GROUNDS = ('plain', 'textured')
MOTIONS = ('straight', 'gravity')

# At 64 px and 16 frames.
_RADIUS = (6.0, 10.0)  # Of the disc of equal area, px.
_SPEED = (1.4, 2.2)  # Px a frame.
_GRAVITY = 0.2  # Px a frame a frame.
_SPIN = (2.0, 6.0)  # Degrees a frame, either way round.
_SHRINK = (1.0, 0.8, 0.7)  # Of the radius, with one, two, three objects.
_MARGIN = 1.0  # Px kept clear of the walls: anti-aliasing reaches that far.
_HUE_GAP = 1 / 6  # Least difference of two objects' hues, in turns.
_ATTEMPTS = 20_000  # Draws of a scene before its options count as impossible.

_DIAGONAL = np.sqrt(0.5)
# fmt: off
_DIRECTIONS = np.array([
    [1, 0], [_DIAGONAL, _DIAGONAL], [0, 1], [-_DIAGONAL, _DIAGONAL],
    [-1, 0], [-_DIAGONAL, -_DIAGONAL], [0, -1], [_DIAGONAL, -_DIAGONAL],
])
# fmt: on


@dataclasses.dataclass(frozen=True)
class _Paths:
  """Objects of one scene: k of them, over t frames."""

  shape: np.ndarray  # [k]
  size: np.ndarray  # [k]
  centre: np.ndarray  # [t k 2]
  velocity: np.ndarray  # [t k 2]
  angle: np.ndarray  # [t k], radians


def render(
  index: int,
  *,
  seed: int,
  resolution: int,
  frames: int,
  objects: int = 1,
  ground: str = 'plain',
  motion: str = 'straight',
  rotation: bool = False,
  walls: bool = False,
  crossings: bool = False,
) -> dict:
  """Renders scene `index` of the world `seed`.

  The label is a promise for the whole window: the class of the only object's
  direction if its velocity never changes, else -1. So it is -1 with several
  objects, under gravity, and with `walls` in those clips in which the object
  bounces. Where labels hold, each aligned block of eight indices has every
  class once, in an order of its own: splits are balanced, and a stride over
  the indices does not pick out a class.

  Args:
    index: Which scene, from 0.
    seed: Which world, from 0.
    resolution: Height and width, px.
    frames: Frames of the scene.
    objects: 1 to 3; their colours differ by 60 degrees of hue or more. They
      never collide: without `crossings` they never meet.
    ground: 'plain' (black) or 'textured' (still, dark and nearly grey).
    motion: 'straight' or 'gravity' (downwards).
    rotation: Objects turn steadily; a turning object keeps its distance from
      walls and others as its circumscribed circle.
    walls: Objects may reach the walls and bounce off them elastically. Without
      it every start from which no wall is touched is equally likely.
    crossings: Two objects are apart at first and at last, and one hides at
      least the centre of the other in between.

  Returns:
    'frames' uint8 [t h w 3]; 'label' int; 'truth', a dict of 'centre' float32
    [t k 2] (x, y), 'velocity' float32 [t k 2] px a frame, 'size' float32 [t k]
    (radius of the disc of equal area, px), 'colour' uint8 [t k 3], 'visible'
    float32 [t k] (share of the object that is seen), 'shape' int32 [k] (index
    into `SHAPE_NAMES`) and 'angle' float32 [t k] (radians, clockwise). Object
    0 is the nearest.

  Raises:
    ValueError: An option is out of its range, or the objects do not fit.
  """
  _check(resolution, frames, objects, ground, motion, crossings)
  entropy = np.random.SeedSequence([seed, index])
  random = np.random.Generator(np.random.PCG64(entropy))
  direction = _direction(seed, index)
  for _ in range(_ATTEMPTS):
    paths = _draw_paths(
      random,
      direction,
      resolution=resolution,
      frames=frames,
      objects=objects,
      gravity=motion == 'gravity',
      rotation=rotation,
      walls=walls,
      crossings=crossings,
    )
    if paths is not None and (objects == 1 or _keeps(paths, crossings)):
      break
  else:
    raise ValueError(
      f'No scene of {objects} objects in {frames} frames of {resolution} px '
      'was found: ask for fewer objects or frames, or for walls.'
    )
  colour = _draw_colours(random, objects)
  still = _draw_ground(random, ground, resolution)
  video, visible = _paint(paths, colour, still)

  steady = objects == 1 and motion == 'straight'
  steady = steady and bool((paths.velocity == paths.velocity[0]).all())
  truth = {
    'centre': paths.centre.astype(np.float32),
    'velocity': paths.velocity.astype(np.float32),
    'size': np.tile(paths.size, [frames, 1]).astype(np.float32),
    'colour': np.tile(colour, [frames, 1, 1]),
    'visible': visible.astype(np.float32),
    'shape': paths.shape.astype(np.int32),
    'angle': paths.angle.astype(np.float32),
  }
  return {
    'frames': video,
    'label': direction if steady else -1,
    'truth': truth,
  }


def gravity(
  *, resolution: int, frames: int, walls: bool, crossings: bool
) -> float:
  """Returns the downward acceleration under 'gravity', px a frame a frame."""
  slow = _slowness(frames, walls, crossings)
  return _GRAVITY * resolution / 64 * slow**2


def _slowness(frames: int, walls: bool, crossings: bool) -> float:
  """Returns the speed of objects as a share of that in 16 frames."""
  slow = 15 / max(frames - 1, 1)
  slow = slow if crossings else min(1.0, slow)
  return max(1.0, slow) if walls else slow


def _check(resolution, frames, objects, ground, motion, crossings) -> None:
  least = 16 if objects == 1 else 32
  if resolution < least:
    raise ValueError(
      f'Scenes of {objects} objects need {least} px or more, not {resolution}.'
    )
  if frames < 1:
    raise ValueError(f'Scenes need at least one frame, not {frames}.')
  if objects not in (1, 2, 3):
    raise ValueError(f'Scenes have one to three objects, not {objects}.')
  if ground not in GROUNDS:
    raise ValueError(f'The ground is one of {GROUNDS}, not {ground!r}.')
  if motion not in MOTIONS:
    raise ValueError(f'The motion is one of {MOTIONS}, not {motion!r}.')
  if crossings and (objects == 1 or frames < 4):
    raise ValueError('Crossings need two objects and four frames or more.')


def _direction(seed: int, index: int) -> int:
  """Returns the class of scene `index`: each once in a block of eight."""
  block, place = divmod(index, len(LABEL_NAMES))
  entropy = np.random.SeedSequence([seed, block], spawn_key=(1,))
  random = np.random.Generator(np.random.PCG64(entropy))
  return int(np.argsort(random.random(len(LABEL_NAMES)))[place])


def _uniform(random, low, high):
  return low + (high - low) * random.random()


def _draw_paths(
  random,
  direction,
  *,
  resolution,
  frames,
  objects,
  gravity,
  rotation,
  walls,
  crossings,
):
  """Draws the objects of a scene; None if one does not fit in the frame."""
  scale = resolution / 64
  slow = _slowness(frames, walls, crossings)
  fall = _GRAVITY * scale * slow**2 if gravity else 0.0
  times = np.arange(frames, dtype=np.float64)
  shape, size, centre, velocity, angle = [], [], [], [], []
  for k in range(objects):
    kind = int(random.random() * len(SHAPE_NAMES))
    radius = _uniform(random, *_RADIUS) * _SHRINK[objects - 1] * scale
    speed = _uniform(random, *_SPEED) * scale * slow
    way = direction if k == 0 else int(random.random() * 8)
    turn = _uniform(random, -1.0, 1.0) * np.pi
    spin = _uniform(random, *_SPIN) * np.sign(turn) * slow * np.pi / 180
    start = random.random(2)
    extent = _extent(kind, radius, rotation)
    low = extent[0] + _MARGIN
    high = resolution - extent[1] - _MARGIN
    path = []
    for axis, force in ((0, 0.0), (1, fall)):
      push = speed * _DIRECTIONS[way, axis]
      path.append(
        mechanics.move(
          push, force, low[axis], high[axis], start[axis], times, walls
        )
      )
    if path[0] is None or path[1] is None:
      return None
    shape.append(kind)
    size.append(radius)
    centre.append(np.stack([path[0][0], path[1][0]], axis=-1))
    velocity.append(np.stack([path[0][1], path[1][1]], axis=-1))
    angle.append(turn + spin * times if rotation else np.zeros(frames))
  return _Paths(
    shape=np.array(shape),
    size=np.array(size),
    centre=np.stack(centre, axis=1),
    velocity=np.stack(velocity, axis=1),
    angle=np.stack(angle, axis=1),
  )


def _keeps(paths: _Paths, crossings: bool) -> bool:
  """Says whether objects keep apart, or two of them cross, as was asked."""
  circle = []
  for kind, size in zip(paths.shape, paths.size, strict=True):
    circle.append(_polygon(kind, size)[1] if kind else size)
  for a in range(len(circle)):
    for b in range(a):
      gap = np.linalg.norm(paths.centre[:, a] - paths.centre[:, b], axis=-1)
      apart = gap > circle[a] + circle[b] + 2 * _MARGIN
      if not crossings:
        if not apart.all():
          return False
      # Well inside the nearer one's inscribed circle, whatever its shape.
      elif (
        apart[0] and apart[-1] and gap.min() < 0.4 * paths.size[[a, b]].min()
      ):
        return True
  return not crossings


def _polygon(kind: int, size: float) -> tuple[float, float]:
  """Returns (apothem, circumradius) of a polygon with a disc's area."""
  sides = {1: 4, 2: 3}[kind]
  apothem = size * np.sqrt(np.pi / (sides * np.tan(np.pi / sides)))
  return apothem, apothem / np.cos(np.pi / sides)


def _normals(kind: int) -> np.ndarray:
  """Returns the edges' outward normals [sides 2]; a triangle points up."""
  sides = {1: 4, 2: 3}[kind]
  angle = np.pi / 2 + 2 * np.pi * np.arange(sides) / sides
  return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _extent(kind: int, size: float, turning: bool) -> np.ndarray:
  """Returns how far a shape reaches: [[left, up], [right, down]]."""
  if kind == 0:
    return np.full([2, 2], size)
  apothem, circumradius = _polygon(kind, size)
  if turning:
    return np.full([2, 2], circumradius)
  if kind == 1:
    return np.full([2, 2], apothem)
  side = circumradius * np.sqrt(0.75)
  return np.array([[side, circumradius], [side, apothem]])


def _draw_colours(random, objects: int) -> np.ndarray:
  """Draws saturated colours uint8 [k 3], uniform in hue, well apart."""
  hues = []
  while len(hues) < objects:
    hue = random.random()
    if all(abs((hue - h + 0.5) % 1 - 0.5) >= _HUE_GAP for h in hues):
      hues.append(hue)
  ramp = np.abs((np.array(hues)[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3)
  return np.rint(np.clip(ramp - 1, 0, 1) * 255).astype(np.uint8)


def _draw_ground(random, ground: str, resolution: int) -> np.ndarray:
  """Draws the ground, float [h w 3] in grey levels."""
  image = np.zeros([resolution, resolution, 3])
  if ground == 'plain':
    return image
  for cells, contrast in ((4, 30.0), (12, 30.0)):
    grid = random.random([cells + 1, cells + 1])
    at = (np.arange(resolution) + 0.5) * cells / resolution
    low = at.astype(int)
    part = at - low
    rows = grid[low] * (1 - part[:, None]) + grid[low + 1] * part[:, None]
    image += (
      contrast
      * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)[..., None]
    )
  tint = 0.9 + 0.2 * random.random(3)
  return (20 + image) * tint


def _paint(paths: _Paths, colour: np.ndarray, ground: np.ndarray):
  """Paints uint8 [t h w 3], and says how much is seen of each object [t k]."""
  frames, objects = paths.angle.shape
  resolution = ground.shape[0]
  middle = np.arange(resolution) + 0.5
  video = np.repeat(ground[None], frames, axis=0)
  visible = np.ones([frames, objects])
  open_ = np.ones([frames, resolution, resolution])
  for k in range(objects):  # From the nearest: it leaves less to the others.
    dx = middle - paths.centre[:, k, 0, None]
    dy = middle - paths.centre[:, k, 1, None]
    coverage = np.clip(
      0.5 - _distance(paths.shape[k], paths.size[k], paths.angle[:, k], dx, dy),
      0,
      1,
    )
    seen = coverage * open_
    visible[:, k] = seen.sum((1, 2)) / coverage.sum((1, 2))
    video += seen[..., None] * (colour[k] - ground)
    open_ -= seen
  return np.rint(video).clip(0, 255).astype(np.uint8), visible


def _distance(kind, size, angle, dx, dy) -> np.ndarray:
  """Returns the distance [t h w] from a shape's outline, negative inside.

  Args:
    kind: The shape.
    size: Radius of the disc of equal area.
    angle: Clockwise, radians [t].
    dx: Columns from the centre [t w].
    dy: Rows from the centre [t h].
  """
  if kind == 0:
    return np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) - size
  apothem, _ = _polygon(kind, size)
  cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
  distance = None
  for nx, ny in _normals(kind):
    x, y = cos * nx - sin * ny, sin * nx + cos * ny
    edge = (dx * x)[:, None, :] + (dy * y)[:, :, None] - apothem
    distance = edge if distance is None else np.maximum(distance, edge)
  return distance
