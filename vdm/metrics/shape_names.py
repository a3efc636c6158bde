"""Names the shape of an object of a synthetic scene.

An object's share of each pixel is compared with the outlines that the scenes
are drawn with, of the same centre and area, sharp and blurred: the name is the
outline with the least squared difference. Without the blurred ones, a square
that an autoencoder has smoothed is a disc.
"""

import cv2
from etils.array_types import FloatArray
import numpy as np

from vdm.common import shapes

_TURNS = 12  # Angles that are tried over the symmetry of a polygon.
_BLURS = (0.7, 1.2)  # Deviations, px.
_REACH = 2.0  # Half width of the compared window in radii; a triangle's 1.56.
# The angles of each shape.
_UPRIGHT = (np.zeros(1),) * len(shapes.NAMES)
_TURNING = tuple(
  np.arange(_TURNS if sides else 1) * 2 * np.pi / (_TURNS * max(sides, 1))
  for sides in shapes.SIDES
)


def name(
  weight: FloatArray['h w'],
  centre: FloatArray['2'],
  size: float,
  turning: bool = False,
) -> tuple[int, float]:
  """Returns the shape that an object resembles most, and how clearly.

  Args:
    weight: the object's share of each pixel.
    centre: (x, y), px; the middle of the top left pixel is (0.5, 0.5).
    size: radius of the disc of equal area, px.
    turning: squares and triangles need not be upright.

  Returns:
    Index into `shapes.NAMES`; 1 - d / d' of the squared differences from this
    outline and from the next best name: 1 for a perfect match, 0 for a tie.
  """
  h, w = weight.shape
  reach = _REACH * size + 1.5
  columns = np.arange(
    max(0, int(centre[0] - reach)), min(w, int(centre[0] + reach) + 1)
  )
  rows = np.arange(
    max(0, int(centre[1] - reach)), min(h, int(centre[1] + reach) + 1)
  )
  part = weight[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  dx, dy = columns + 0.5 - centre[0], rows + 0.5 - centre[1]
  errors = [
    np.square(_outlines(shape, size, angles, dx, dy) - part[..., None])
    .sum((0, 1))
    .min()
    for shape, angles in enumerate(_TURNING if turning else _UPRIGHT)
  ]
  best, second = np.partition(errors, 1)[:2]
  return int(np.argmin(errors)), float(1 - best / second) if second else 0.0


def _outlines(shape, size, angles, dx, dy) -> np.ndarray:
  """Returns a shape's share of each pixel, sharp and blurred, [y x n]."""
  dx, dy = (np.tile(d, (len(angles), 1)) for d in (dx, dy))
  sharp = np.moveaxis(shapes.coverage(shape, size, angles, dx, dy), 0, -1)
  blurred = [
    cv2.GaussianBlur(sharp, (0, 0), blur).reshape(sharp.shape)
    for blur in _BLURS
  ]
  return np.concatenate([sharp, *blurred], axis=-1)
