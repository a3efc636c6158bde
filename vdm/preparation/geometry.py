"""The geometry of decoded frames: crop, resize, pixel aspect, orientation.

A frame becomes one of the wanted height and width by a crop around the centre
and area averaging, in the orientation and with the pixel aspect that the file
asks for: nothing is squashed. `inspection.check_size` rejects frames that would
be enlarged.
"""

import threading

import av
import cv2
from etils.array_types import ui8
import numpy as np

from vdm.common import sizes
from vdm.preparation import color

Box = tuple[int, int, int, int]  # Top, bottom, left, right of a part, px.

_local = threading.local()


def to_rgb(frame: av.VideoFrame) -> ui8['h w 3']:
  """Returns a whole frame as stored."""
  # A frame's own `to_ndarray` makes a converter, with one thread per processor,
  # that lives as long as the frame; one for all is five times as fast.
  if not hasattr(_local, 'reformatter'):
    _local.reformatter = av.video.reformatter.VideoReformatter()
  rgb = _local.reformatter.reformat(
    frame,
    format='rgb24',
    src_colorspace=color.source_colorspace(frame),
    threads=1,
  )
  return rgb.to_ndarray()


def fit(
  frame: av.VideoFrame,
  size: sizes.Size,
  pixel_aspect: float = 1.0,
  box: Box | None = None,
) -> ui8['h w 3']:
  """Returns the centred part of a frame of one aspect, resized, upright, RGB.

  Args:
    frame: as decoded.
    size: height and width of the result, px.
    pixel_aspect: width of a pixel over its height.
    box: part of the frame to use, in stored px, before rotation; None: all.
  """
  image = _crop(frame, box)
  # A centred part may be oriented after the crop: of the size as it is stored.
  stored = size[::-1] if quarter_turns(frame) % 2 else size
  top, left, *shown = sizes.fit(image.shape[:2], stored, pixel_aspect)
  image = image[top : top + shown[0], left : left + shown[1]]
  if tuple(shown) != tuple(stored):
    # Area averaging is for shrinking.
    shrinks = any(here >= there for here, there in zip(shown, stored))
    image = cv2.resize(
      image,
      stored[::-1],
      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
    )
  return _oriented(image, frame)


def upright(
  frame: av.VideoFrame, pixel_aspect: float = 1.0, box: Box | None = None
) -> ui8['h w 3']:
  """Returns a whole frame, or its part in `box`, as it is displayed, RGB."""
  image = _crop(frame, box)
  width = max(1, round(image.shape[1] * pixel_aspect))
  if width != image.shape[1]:
    image = cv2.resize(image, (width, image.shape[0]))
  return _oriented(image, frame)


def displayed_size(
  frame: av.VideoFrame, pixel_aspect: float
) -> tuple[int, int]:
  """Returns (height, width) after pixel aspect and rotation, px."""
  height, width = frame.height, round(frame.width * pixel_aspect)
  return (width, height) if quarter_turns(frame) % 2 else (height, width)


def quarter_turns(frame: av.VideoFrame) -> int:
  """Returns the anticlockwise quarter turns that bring a frame upright.

  They come after mirroring, see `is_mirrored`.
  """
  return _orientation(frame)[0]


def is_mirrored(frame: av.VideoFrame) -> bool:
  """Returns whether left and right of a stored frame are to be exchanged."""
  return _orientation(frame)[1]


def _oriented(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
  if is_mirrored(frame):
    image = image[:, ::-1]
  return np.ascontiguousarray(np.rot90(image, quarter_turns(frame)))


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
  """Returns the nearest of the eight orientations that a matrix may ask for.

  The display matrix maps a stored point (x, y), y downwards, to
  (a x + c y, b x + d y). With x negated if that mirrors (a negative
  determinant) it is a rotation, up to scale.
  """
  data = frame.side_data.get('DISPLAYMATRIX')
  if data is None:
    return 0, False
  # Rows of a, b, u; c, d, v; x, y, w.
  a, b, _, c, d, *_ = np.frombuffer(data, np.int32).astype(float)
  sign = -1 if a * d < b * c else 1
  clockwise = np.arctan2(sign * b - c, sign * a + d)
  return round(-clockwise / (np.pi / 2)), sign < 0


def _crop(frame: av.VideoFrame, box: Box | None) -> np.ndarray:
  top, bottom, left, right = box or (0, frame.height, 0, frame.width)
  return to_rgb(frame)[top:bottom, left:right]
