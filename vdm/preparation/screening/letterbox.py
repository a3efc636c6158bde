"""Black bars around a picture.

They are found from the brightest luma of rows and columns over all samples of
a video.
"""

from collections.abc import Sequence

from etils.array_types import ui8
import numpy as np

from vdm.preparation import geometry
from vdm.preparation.screening import observe

_BLACK = 40  # Brightest luma of a bar; 16 is black, coding adds noise.
_LIT = 60  # Luma that the picture next to a bar reaches.
_MIN_SHARE = 0.02  # Of the side, for each of the two bars.
_UNEVEN = 0.02  # Of the side, by which the two bars may differ.


def find(samples: Sequence[observe.Sample]) -> geometry.Box | None:
  """Returns the part of the frames within black bars.

  Bars come in pairs of about equal size; what is dark on one side alone is
  part of the scene.

  Returns:
    In stored px, before rotation; None if there are no bars.
  """
  known = [s for s in samples if s.rows is not None]
  if not known or len({(len(s.rows), len(s.columns)) for s in known}) > 1:
    return None
  top, bottom = _inside(np.max([s.rows for s in known], axis=0))
  left, right = _inside(np.max([s.columns for s in known], axis=0))
  height, width = len(known[0].rows), len(known[0].columns)
  if (top, bottom, left, right) == (0, height, 0, width):
    return None
  return top, bottom, left, right


def _inside(brightest: ui8[' n']) -> tuple[int, int]:
  """Returns the first index within the bars, and one past the last."""
  n = len(brightest)
  lit = np.flatnonzero(brightest > _BLACK)
  if not lit.size:
    return 0, n
  first, last = int(lit[0]), int(lit[-1]) + 1
  bars = (first, n - last)
  even = abs(bars[0] - bars[1]) <= max(4, _UNEVEN * n)
  inner = max(4, n // 50)
  sharp = min(
    brightest[first : first + inner].max(),
    brightest[max(0, last - inner) : last].max(),
  )
  if min(bars) < max(2, _MIN_SHARE * n) or not even or sharp < _LIT:
    return 0, n
  # A bar's last row is half picture after scaling and chroma subsampling.
  first, last = first + 1, last - 1
  return first + first % 2, last - last % 2
