"""What power-function averages are made of, and averages of averages.

After n updates the average of exponent gamma weighs the value after update k by

  w_n(k) = (k^(gamma + 1) - (k - 1)^(gamma + 1)) / n^(gamma + 1)

(Karras et al., 2312.02696, EDM2; the sum of products of their equation 127). An
average of any other width, at any update up to the last, is nearly a linear
combination of a few that were stored on the way (their section 3.2).
"""

from collections.abc import Sequence
from typing import NamedTuple

from etils.array_types import FloatArray
import numpy as np

_BLOCK = 65_536  # Updates whose weights are in memory at once.


class Average(NamedTuple):
  """An average of a parameter.

  Attributes:
    gamma: its exponent.
    count: updates of the parameter that it saw, at least 1.
  """

  gamma: float
  count: int


def gamma(sigma_rel: float) -> float:
  """Returns the exponent whose average is `sigma_rel` wide (eq. 126).

  sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), solved as a cubic.

  Args:
    sigma_rel: standard deviation of k / n under the weights, in (0, 0.28).

  Raises:
    ValueError: it is not above 0, or wider than any such average, 0.28.
  """
  if not sigma_rel > 0:  # Not NaN either.
    raise ValueError(f'The width of an average is above 0, not {sigma_rel}.')
  inverse = sigma_rel**-2.0
  roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
  largest = max(root.real for root in roots if abs(root.imag) < 1e-9)
  if largest < 0:
    raise ValueError(f'An average is no wider than 0.28, not {sigma_rel}.')
  return largest


def weights(
  average: Average, first: int, last: int
) -> FloatArray[' last-first+1']:
  """Returns w_n(k) of the updates k from `first` to `last`, both included."""
  k = np.minimum(np.arange(first - 1, last + 1), average.count)
  return np.diff((k / average.count) ** (average.gamma + 1.0))


def combine(
  stored: Sequence[Average], wanted: Average
) -> tuple[FloatArray[' n'], float]:
  """Returns the factors of stored averages whose sum is closest to another.

  The squared difference of the weights is the least where the factors add up to
  1, so that a parameter which does not change comes out as it is.

  Args:
    stored: averages of the same parameter.
    wanted: the average to make.

  Returns:
    (the factors, the root of the squared difference relative to the sum of
    squares of the wanted weights). The latter is 0 if it can be made exactly.

  Raises:
    ValueError: nothing is stored.
  """
  if not stored:
    raise ValueError('There are no stored averages to combine.')
  n = len(stored)
  rows = [*stored, wanted]
  products = np.zeros((n + 1, n + 1))
  end = max(average.count for average in rows)
  for first in range(1, end + 1, _BLOCK):
    last = min(first + _BLOCK - 1, end)
    w = np.stack([weights(average, first, last) for average in rows])
    products += w @ w.T
  # Lagrange's condition; scaled, so that narrow averages do not dominate.
  scale = np.sqrt(np.diag(products)[:n])
  unit = scale.min()
  system = np.zeros((n + 1, n + 1))
  system[:n, :n] = products[:n, :n] / np.outer(scale, scale)
  system[:n, n] = system[n, :n] = unit / scale
  target = np.append(products[:n, n] / scale, unit)
  factors = np.linalg.lstsq(system, target, rcond=1e-14)[0][:n] / scale
  both = np.append(factors, -1.0)
  rest = max(both @ products @ both, 0.0)
  return factors, float(np.sqrt(rest / products[n, n]))
