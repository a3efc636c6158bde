"""Pixels of a scene: colours, the ground, and objects in front of each other.

Pixels are anti-aliased by the distance of their middle from the outline, over
one pixel: the ramp is symmetric about the outline, so area and centroid of a
shape are those of the truth.
"""

from etils.array_types import FloatArray, IntArray, ui8
import numpy as np

from vdm.common import shapes
from vdm.common import sizes
from vdm.data.synthetic import paths

_HUE_GAP = 1 / 6  # Least difference of two objects' hues, in turns.
_NAMES = 6  # Hues that have names, from red on.
_NAMED = 0.3  # Of the distance between two of them: how far colours spread.


def draw_colours(
  random: np.random.Generator, objects: int, named: bool = False
) -> ui8['k 3']:
  """Draws saturated colours, well apart.

  Args:
    random: source of the draws.
    objects: number of colours.
    named: within 9 degrees of a hue that has a name; else uniform in hue.
  """
  hues = []
  while len(hues) < objects:
    hue = random.random()
    if named:
      name, part = divmod(hue * _NAMES, 1)
      hue = (name + _NAMED * (part - 0.5)) / _NAMES % 1
    if all(abs((hue - h + 0.5) % 1 - 0.5) >= _HUE_GAP for h in hues):
      hues.append(hue)
  ramp = np.abs((np.array(hues)[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3)
  return np.rint(np.clip(ramp - 1, 0, 1) * 255).astype(np.uint8)


def draw_ground(
  random: np.random.Generator, ground: str, size: sizes.Size
) -> FloatArray['h w 3']:
  """Draws the ground in grey levels: black, or smooth noise, nearly grey."""
  image, (height, width) = np.zeros([*size, 3]), size
  if ground == 'plain':
    return image
  for cells, contrast in ((4, 30.0), (12, 30.0)):
    across = max(1, round(cells * width / height))  # About as wide as high.
    grid = random.random([cells + 1, across + 1])
    low, part = _places(cells, height)
    rows = grid[low] * (1 - part[:, None]) + grid[low + 1] * part[:, None]
    low, part = _places(across, width)
    noise = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    image += contrast * noise[..., None]
  tint = 0.9 + 0.2 * random.random(3)
  return (20 + image) * tint


def _places(cells: int, pixels: int) -> tuple[IntArray[' n'], FloatArray[' n']]:
  """Returns in which cell each pixel's middle lies, and how far into it."""
  at = (np.arange(pixels) + 0.5) * cells / pixels
  low = at.astype(int)
  return low, at - low


def paint(
  moving: paths.Paths, colour: ui8['k 3'], ground: FloatArray['h w 3']
) -> tuple[ui8['t h w 3'], FloatArray['t k']]:
  """Returns the frames and the share of each object that is visible."""
  frames, objects = moving.angle.shape
  height, width = ground.shape[:2]
  rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
  video = np.repeat(ground[None], frames, axis=0)
  visible = np.ones([frames, objects])
  uncovered = np.ones([frames, height, width])
  for k in range(objects):  # The nearest first: it hides those after it.
    dx = columns - moving.centre[:, k, 0, None]
    dy = rows - moving.centre[:, k, 1, None]
    coverage = shapes.coverage(
      moving.shape[k], moving.size[k], moving.angle[:, k], dx, dy
    )
    seen = coverage * uncovered
    visible[:, k] = seen.sum((1, 2)) / coverage.sum((1, 2))
    video += seen[..., None] * (colour[k] - ground)
    uncovered -= seen
  return np.rint(video).clip(0, 255).astype(np.uint8), visible
