"""Discs, squares and triangles: how far they reach, how far a pixel is off.

A shape is its index into `NAMES`, and its size the radius of the disc of equal
area, px. An upright triangle points up.
"""

from etils.array_types import FloatArray
import numpy as np

NAMES = ('disc', 'square', 'triangle')
SIDES = (0, 4, 3)


def circumradius(shape: int, size: float) -> float:
  """Returns the radius of a shape's circumscribed circle, px."""
  return _radii(shape, size)[1] if shape else size


def extent(shape: int, size: float, turning: bool) -> FloatArray['2 2']:
  """Returns how far a shape reaches: [[left, up], [right, down]], px."""
  if shape == 0:
    return np.full([2, 2], size)
  inner, outer = _radii(shape, size)
  if turning:
    return np.full([2, 2], outer)
  if shape == 1:
    return np.full([2, 2], inner)
  side = outer * np.sqrt(0.75)
  return np.array([[side, outer], [side, inner]])


def distance(
  shape: int,
  size: float,
  angle: FloatArray[' t'],
  dx: FloatArray['t w'],
  dy: FloatArray['t h'],
) -> FloatArray['t h w']:
  """Returns the distance from a shape's outline, negative inside, px.

  Args:
    shape: index into `NAMES`.
    size: radius of the disc of equal area, px.
    angle: clockwise, radians.
    dx: columns from the centre, px.
    dy: rows from the centre, px.
  """
  if shape == 0:
    return np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) - size
  inner, _ = _radii(shape, size)
  cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
  edges = []
  for nx, ny in _normals(shape):
    x, y = cos * nx - sin * ny, sin * nx + cos * ny
    edges.append((dx * x)[:, None, :] + (dy * y)[:, :, None] - inner)
  return np.maximum.reduce(edges)


def coverage(
  shape: int,
  size: float,
  angle: FloatArray[' t'],
  dx: FloatArray['t w'],
  dy: FloatArray['t h'],
) -> FloatArray['t h w']:
  """Returns the share of each pixel that a shape covers, see `distance`.

  The ramp over one pixel is symmetric about the outline, so area and centroid
  of a shape are those of the truth.
  """
  return np.clip(0.5 - distance(shape, size, angle, dx, dy), 0, 1)


def _radii(shape: int, size: float) -> tuple[float, float]:
  """Returns (apothem, circumradius) of a polygon with a disc's area."""
  sides = SIDES[shape]
  apothem = size * np.sqrt(np.pi / (sides * np.tan(np.pi / sides)))
  return apothem, apothem / np.cos(np.pi / sides)


def _normals(shape: int) -> FloatArray['sides 2']:
  """Returns the outward normals of a polygon's edges."""
  sides = SIDES[shape]
  angle = np.pi / 2 + 2 * np.pi * np.arange(sides) / sides
  return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
