"""Burned-in text, logos and watermarks: edges that stay while all else moves.

Over samples of one shot the median of each pixel's gradient is what is always
there: the edges of a scene that moves cancel, those of an overlay, also of a
half-transparent one, remain (the idea is that of Dekel et al., "On the
Effectiveness of Visible Watermarks", CVPR 2017, over time instead of over
pictures). Where most of the picture is static the two cannot be separated.
"""

from collections.abc import Sequence

import cv2
from etils.array_types import ui8
import numpy as np

_MIN_SAMPLES = 5  # Of fewer, an edge may persist by chance.
_MAX_SAMPLES = 48
_MOVING_SHARE = 0.6  # Of the picture, that has to change.
_EDGE = 25.0  # Grey levels over two px, from which a median gradient counts.
_CHANGE = 12.0  # Grey levels between the quartiles of a pixel that changes.
_AROUND = 15  # Px around a pixel that count as its surroundings.
_MARGIN = 0.04  # Of the picture, at its rim: recordings have borders there.


def score(greys: Sequence[ui8['h w']]) -> float | None:
  """Returns the share of the changing area that is edges of overlays.

  Args:
    greys: samples of a shot, spread over time.

  Returns:
    0 to 1; None where there are too few samples or too little changes.
  """
  if len(greys) < _MIN_SAMPLES or len({grey.shape for grey in greys}) > 1:
    return None
  chosen = np.linspace(0, len(greys) - 1, min(len(greys), _MAX_SAMPLES))
  images = [greys[int(i)] for i in chosen.round()]
  height, width = images[0].shape
  rows, columns = round(_MARGIN * height), round(_MARGIN * width)
  inner = (slice(rows, height - rows), slice(columns, width - columns))
  blurred = [cv2.blur(image, (_AROUND, _AROUND)) for image in images]
  low, high = np.percentile(blurred, (25, 75), axis=0)
  changes = (high - low > _CHANGE)[inner]
  if not changes.size or changes.mean() < _MOVING_SHARE:
    return None
  # Well inside: edges of what is static beside something that moves do not
  # count.
  kernel = np.ones((_AROUND // 2 + 1,) * 2, np.uint8)
  changes = cv2.erode(changes.astype(np.uint8), kernel).astype(bool)
  if not changes.any():
    return None
  x, y = (
    np.median(
      [cv2.Sobel(image, cv2.CV_32F, *order, ksize=1) for image in images], 0
    )[inner]
    for order in ((1, 0), (0, 1))
  )
  return round(float((np.hypot(x, y)[changes] > _EDGE).mean()), 5)
