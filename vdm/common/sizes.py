"""Heights and widths of frames, and the part of a larger one that fits.

Whatever has frames says their size by two keys: `resolution`, the height, and
`width`, which is 0 or absent where frames are square. A frame of another aspect
loses what is too much of it on both sides alike: nothing is squashed.
"""

from collections.abc import Mapping
from typing import Any

Size = tuple[int, int]  # (height, width), px.


def of(part: Mapping[str, Any]) -> Size:
  """Returns the size that a group of keys states, such as `config.data`."""
  return part['resolution'], part.get('width') or part['resolution']


def keys(size: Size) -> dict[str, int]:
  """Returns the keys that state a size; 'width' of those that are not square.

  So what is square has the same content, and hash, as before there were others.
  """
  height, width = size
  return {'resolution': height} | ({'width': width} if width != height else {})


def text(size: Size) -> str:
  """Returns a size for people: 64 of a square, else width x height, 112x64."""
  height, width = size
  return str(height) if height == width else f'{width}x{height}'


def magnification(within: Size, size: Size) -> float:
  """Returns how much larger than `size` is the part that fits in `within`."""
  return min(outer / inner for outer, inner in zip(within, size))


def fit(
  within: Size, size: Size, pixel_aspect: float = 1.0
) -> tuple[int, int, int, int]:
  """Returns (top, left, rows, columns) of the largest centred part.

  Args:
    within: of the frame.
    size: whose aspect the part has.
    pixel_aspect: width of a pixel of the frame over its height.
  """
  height, width = within
  aspect = size[1] / size[0]
  side = min(height, width * pixel_aspect / aspect)
  rows, columns = round(side), round(side * aspect / pixel_aspect)
  return (height - rows) // 2, (width - columns) // 2, rows, columns
