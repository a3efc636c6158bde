"""Burned-in text, logos and watermarks: edges that stay while all else moves.

Over samples of one shot, what each pixel's gradient has in four fifths of them
is what is always there: the edges of a scene that moves
cancel, those of an overlay, also of a half-transparent one, remain (the idea is
that of Dekel et al., "On the Effectiveness of Visible Watermarks", CVPR 2017,
over time instead of over pictures).

Where most of the picture is static the two cannot be separated, and nothing is
measured. That the picture becomes brighter or darker is no motion: what a
change of light explains (a fade, a lamp, automatic exposure) is a local linear
function of a reference picture (He et al., "Guided Image Filtering", ECCV
2010), and only what it leaves counts. Nor is a camera that shakes by less than
the picture's own detail.
"""

from collections.abc import Sequence

import cv2
from etils.array_types import BoolArray, FloatArray, ui8
import numpy as np

_MIN_SAMPLES = 5  # Of fewer, an edge may persist by chance.
_MAX_SAMPLES = 48
_EDGE = 20.0  # Grey levels over two px, from which a lasting gradient counts.
_LACKING = 0.2  # Share of the samples that may lack it.
_SCALE = 4  # Motion is detected in copies that are smaller by this.
_BLUR = (4, 4)  # Px of the small copies: an overlay's strokes are finer.
_WINDOW = (21, 21)  # Px of the small copies that light is alike over.
_CHANGE = 6.0  # Grey levels between the quartiles of a pixel that changes,
_CHANGE_SHARE = 0.4  # and the share of the usual local contrast.
_MOVING_SHARE = 0.6  # Of the picture, that has to change.
_GAP = 9  # Px of the small copies; smaller gaps in what moves are filled.
_INSIDE = 16  # Px over which all must move, for an edge to count.
_MARGIN = 0.04  # Of the picture, at its rim: recordings have borders there.


def score(greys: Sequence[ui8['h w']]) -> float | None:
  """Returns the share of the moving area that is edges of overlays.

  Args:
    greys: samples of a shot, spread over time.

  Returns:
    0 to 1; None where there are too few samples or too little moves.
  """
  if len(greys) < _MIN_SAMPLES or len({grey.shape for grey in greys}) > 1:
    return None
  chosen = np.linspace(0, len(greys) - 1, min(len(greys), _MAX_SAMPLES))
  height, width = greys[0].shape
  rows, columns = round(_MARGIN * height), round(_MARGIN * width)
  inner = (slice(rows, height - rows), slice(columns, width - columns))
  images = [np.ascontiguousarray(greys[int(i)][inner]) for i in chosen.round()]
  if min(images[0].shape) < 2 * _SCALE:
    return None
  moving = _moving(images)
  if moving.mean() < _MOVING_SHARE:
    return None
  # An overlay's own pixels may change little. Edges of what is static beside
  # something that moves do not count.
  mask = moving.astype(np.uint8)
  mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((_GAP, _GAP)))
  size = images[0].shape[::-1]
  mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
  mask = cv2.erode(mask, np.ones((_INSIDE, _INSIDE))).astype(bool)
  if not mask.any():
    return None
  edges = np.hypot(
    _lasting_gradient(images, 1, 0), _lasting_gradient(images, 0, 1)
  )
  return round(float((edges[mask] > _EDGE).mean()), 5)


def _moving(images: Sequence[ui8['h w']]) -> BoolArray['h2 w2']:
  """Returns where a shot moves, in copies that are smaller by _SCALE."""
  height, width = images[0].shape
  size = (width // _SCALE, height // _SCALE)
  small = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in images]
  small = np.stack([cv2.blur(x.astype(np.float32), _BLUR) for x in small])
  unlit, contrast = _without_light(small)
  least = max(_CHANGE, _CHANGE_SHARE * contrast)
  # Also before: what is static next to something that moves is not moving.
  ranges = [np.ptp(_between(x, 0.25), axis=0) for x in (small, unlit)]
  return np.minimum(*ranges) > least


def _without_light(
  images: FloatArray['n h w'],
) -> tuple[FloatArray['n h w'], float]:
  """Returns what changes of light leave of images, and the local contrast.

  Of each window the best multiple of the images' median, and a constant, is
  removed.
  """

  def mean(image):
    return cv2.blur(image, _WINDOW)

  reference = np.median(images, 0)
  reference = reference - mean(reference)
  power = mean(reference * reference) + 1.0
  left, contrasts = [], []
  for image in images:
    image = image - mean(image)
    contrasts.append(np.sqrt(mean(image * image)))
    gain = np.maximum(mean(image * reference) / power, 0)
    left.append(image - gain * reference)
  return np.stack(left), float(np.median(contrasts))


def _lasting_gradient(
  images: Sequence[ui8['h w']], dx: int, dy: int
) -> FloatArray['h w']:
  """Returns the part of a derivative that lasts, 0 if none does."""
  derivatives = [
    cv2.Sobel(image, cv2.CV_16S, dx, dy, ksize=1) for image in images
  ]
  low, high = _between(np.stack(derivatives), _LACKING)
  return (np.maximum(low, 0) + np.minimum(high, 0)).astype(np.float32)


def _between(
  values: np.ndarray, outside: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the lowest and highest value but for a share on either side."""
  n = len(values)
  low = int(n * outside)
  ordered = np.partition(values, (low, n - 1 - low), axis=0)
  return ordered[low], ordered[n - 1 - low]
