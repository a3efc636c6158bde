"""Whether two configurations differ by more than their seeds do.

Every function works on the last axis, the seeds, for any number of comparisons
at once. With d_i = y_i - x_i of the same seed, n seeds and t of n - 1 degrees
of freedom, the paired test has

  t = mean(d) / (sd(d) / sqrt(n))

and Welch's, for other seeds in y than in x, with v = var(x) / n and
w = var(y) / m,

  t = (mean(y) - mean(x)) / sqrt(v + w)
  freedom = (v + w)^2 / (v^2 / (n - 1) + w^2 / (m - 1))   (Welch, 1947)

Many numbers at once would give false differences by chance alone: `holm`
(Holm, 1979) keeps the probability of even one of them below the level, whatever
the dependence between the numbers.
"""

import bisect
from typing import NamedTuple

from etils.array_types import FloatArray
import numpy as np
from scipy import special

LEVEL = 0.05  # Probability of a false verdict.
POWER = 0.8  # Probability of finding a difference, see `seeds_needed`.
MOST = 1000  # Seeds that `seeds_needed` tries.
_ROUNDING = 1e-9  # Relative spread that is taken for none.


class Test(NamedTuple):
  """A comparison of y with x.

  Attributes:
    difference: mean(y) - mean(x).
    low: lower end of its interval of 1 - LEVEL.
    high: upper end.
    p: two-sided probability of such a difference between equal configurations;
      1 where the seeds have no spread, with which nothing can be compared.
    effect: |difference| over the deviation that one seed more averages: of
      d_i, or sqrt(var(x) + var(y)); infinite without spread.
  """

  difference: FloatArray['*c']
  low: FloatArray['*c']
  high: FloatArray['*c']
  p: FloatArray['*c']
  effect: FloatArray['*c']


def paired(x: FloatArray['*c n'], y: FloatArray['*c n']) -> Test:
  """Compares values of the same seeds, of which there are at least two."""
  d = np.asarray(y, float) - np.asarray(x, float)
  n = d.shape[-1]
  size = np.maximum(np.abs(x).max(-1), np.abs(y).max(-1))
  variance = _without_rounding(d.var(-1, ddof=1), size)
  return _test(d.mean(-1), variance / n, n - 1.0, variance)


def welch(x: FloatArray['*c n'], y: FloatArray['*c m']) -> Test:
  """Compares values of any seeds, of which each has at least two."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  n, m = x.shape[-1], y.shape[-1]
  size = np.maximum(np.abs(x).max(-1), np.abs(y).max(-1))
  first = _without_rounding(x.var(-1, ddof=1), size)
  second = _without_rounding(y.var(-1, ddof=1), size)
  v, w = first / n, second / m
  below = v**2 / (n - 1) + w**2 / (m - 1)
  freedom = (v + w) ** 2 / np.where(below > 0, below, 1.0)
  difference = y.mean(-1) - x.mean(-1)
  return _test(difference, v + w, np.maximum(freedom, 1.0), first + second)


def interval(
  x: FloatArray['*c n'],
) -> tuple[FloatArray['*c'], FloatArray['*c']]:
  """Returns the mean over seeds and half the width of its interval.

  The width of a single seed's is not a number.
  """
  x = np.asarray(x, float)
  n = x.shape[-1]
  if n < 2:
    return x.mean(-1), np.full(x.shape[:-1], np.nan)
  half = quantile(n - 1.0) * np.sqrt(x.var(-1, ddof=1) / n)
  return x.mean(-1), half


def quantile(freedom: float, level: float = LEVEL) -> float:
  """Returns the value that |t| exceeds with a probability of `level`."""
  return special.stdtrit(freedom, 1 - level / 2)


def holm(p: FloatArray['*c k']) -> FloatArray['*c k']:
  """Returns the p of k tests of one question, corrected for their number.

  The i-th smallest is multiplied by k - i + 1, and is at least what those
  before it are.
  """
  p = np.asarray(p, float)
  k = p.shape[-1]
  order = np.argsort(p, axis=-1)
  ranked = np.take_along_axis(p, order, -1) * np.arange(k, 0, -1)
  ranked = np.minimum(np.maximum.accumulate(ranked, axis=-1), 1.0)
  corrected = np.empty_like(p)
  np.put_along_axis(corrected, order, ranked, -1)
  return corrected


def power(effect: float, n: FloatArray['*c'], level: float, *, pairs: bool):
  """Returns the probability that n seeds each find an effect; see `Test`.

  Args:
    effect: true difference over the deviation, as in `Test`.
    n: numbers of seeds.
    level: that p has to stay below.
    pairs: whether both have the same seeds; if not, 2 (n - 1) degrees of
      freedom, those of equal deviations.
  """
  n = np.asarray(n, float)
  freedom = (n - 1) if pairs else 2 * (n - 1)
  critical = quantile(freedom, level)
  moved = effect * np.sqrt(n)
  above = 1 - special.nctdtr(freedom, moved, critical)
  below = special.nctdtr(freedom, moved, -critical)
  # Far out the function is not defined. There t varies as its deviation does,
  # and chi^2 / freedom is below (moved / critical)^2 where t is above critical.
  far = special.chdtr(freedom, freedom * (moved / critical) ** 2)
  return np.where(moved > 30, far, above + np.nan_to_num(below))


def seeds_needed(
  effect: float, level: float = LEVEL, *, pairs: bool
) -> int | None:
  """Returns the seeds of each that find an effect with `POWER`.

  An estimate: it takes the effect that was seen for the true one. None if even
  `MOST` would not do.
  """
  if not np.isfinite(effect) or effect <= 0:
    return None

  def found(n):
    return bool(power(effect, n, level, pairs=pairs) >= POWER)

  # Power rises with the seeds.
  n = bisect.bisect_left(range(2, MOST + 1), True, key=found) + 2
  return n if n <= MOST else None


def _test(difference, squared_error, freedom, variance) -> Test:
  known = variance > 0
  error = np.sqrt(np.where(known, squared_error, 1.0))
  t = np.abs(difference) / error
  half = quantile(freedom) * np.sqrt(squared_error)
  return Test(
    difference=difference,
    low=difference - half,
    high=difference + half,
    p=np.where(known, 2 * special.stdtr(freedom, -t), 1.0),
    effect=np.where(
      known, np.abs(difference) / np.sqrt(np.where(known, variance, 1)), np.inf
    ),
  )


def _without_rounding(variance, size):
  """Returns 0 for variances that rounding alone makes of equal values."""
  return np.where(variance > (_ROUNDING * size) ** 2, variance, 0.0)
