"""How far one set of clips is from another, without assuming Gaussians.

The energy distance between distributions of vectors (Szekely and Rizzo 2013),

  2 E|x - y| - E|x - x'| - E|y - y'|,

is zero only where they are the same. It is estimated without bias and given as
the share of 2 E|x - y| that it makes up: a number without unit, 0 for the same
and towards 1 for sets far apart, whatever the number of dimensions. It is the
squared MMD with the kernel -|x - y|.

Whether a distance is more than chance is told by permutations that move all
clips of a video together: windows of one video are no independent draws.
"""

from collections.abc import Sequence

import numpy as np


class Pooled:
  """Two sets of vectors and the distances between all of them.

  Attributes:
    first: [n + m] 1 for the first set's rows, else 0.
    second: the other way round.
  """

  def __init__(self, x: np.ndarray, y: np.ndarray):
    """Takes vectors [n d] and [m d], two of each or more."""
    if min(len(x), len(y)) < 2:
      raise ValueError('An energy distance takes two clips of each set.')
    self._apart = _pairwise(np.concatenate([x, y]).astype(np.float64))
    self.first = (np.arange(len(x) + len(y)) < len(x)).astype(np.float64)
    self.second = 1 - self.first

  def energy(self, first=None, second=None) -> float:
    """Returns the energy distance as a share; see the module.

    Args:
      first: how often each row counts as one of the first set; by default the
        sets as they are. A row is never paired with itself.
      second: as of the second set.
    """
    first = self.first if first is None else first
    second = self.second if second is None else second
    between = first @ self._apart @ second / (first.sum() * second.sum())
    within = [
      w @ self._apart @ w / (w.sum() ** 2 - np.square(w).sum())
      for w in (first, second)
    ]
    return float((2 * between - sum(within)) / (2 * between) if between else 0)

  def interval(
    self, *, repeats: int = 200, level: float = 0.95, seed: int = 0
  ) -> tuple[float, float]:
    """Returns a bootstrap interval of `energy`, clips drawn anew."""
    random = np.random.default_rng(seed)

    def draw(members):
      rows = np.flatnonzero(members)
      drawn = random.choice(rows, len(rows))
      while (drawn == drawn[0]).all():  # Of one row alone there are no pairs.
        drawn = random.choice(rows, len(rows))
      counts = np.bincount(drawn, minlength=len(members))
      return counts.astype(np.float64)

    values = [
      self.energy(draw(self.first), draw(self.second)) for _ in range(repeats)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

  def null(
    self,
    groups: Sequence | None = None,
    *,
    repeats: int = 200,
    seed: int = 0,
  ) -> np.ndarray:
    """Returns `energy` of random divisions of all rows, [repeats].

    Args:
      groups: [n + m] names of the videos that clips come from, which stay
        together; by default each clip is its own.
      repeats: divisions.
      seed: of the divisions.
    """
    total, wanted = len(self.first), self.first.sum()
    groups = np.arange(total) if groups is None else np.asarray(groups)
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    if len(sizes) < 2:
      raise ValueError('One video alone cannot be divided: give more.')
    random = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
      order = random.permutation(len(sizes))
      ends = np.cumsum(sizes[order])
      # As near to the wanted size as whole videos come, and never all of them.
      count = 1 + np.argmin(np.abs(ends[:-1] - wanted))
      first = np.isin(group, order[:count]).astype(np.float64)
      values.append(self.energy(first, 1 - first))
    return np.array(values)


def _pairwise(x: np.ndarray) -> np.ndarray:
  """Returns the Euclidean distances between the rows of x [n d]."""
  x = x - x.mean(0)  # Fewer digits lost.
  squares = np.square(x).sum(1)
  apart = squares[:, None] + squares[None] - 2 * x @ x.T
  np.fill_diagonal(apart, 0)
  return np.sqrt(np.maximum(apart, 0))


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the mean distance that values [n] are moved to become y [m].

  In the values' own unit: the area between the distribution functions.
  """
  x, y = np.sort(x), np.sort(y)
  every = np.sort(np.concatenate([x, y]))
  shares = [
    np.searchsorted(values, every[:-1], side='right') / len(values)
    for values in (x, y)
  ]
  return float((np.abs(shares[0] - shares[1]) * np.diff(every)).sum())


def auc(x: np.ndarray, y: np.ndarray) -> float:
  """Returns how often a value of y exceeds one of x; 0.5: as often as not.

  Ties count half. Two-sided separation is max(auc, 1 - auc).
  """
  x = np.sort(x)
  below = np.searchsorted(x, y, side='left')
  up_to = np.searchsorted(x, y, side='right')
  return float((below + up_to).mean() / (2 * len(x)))


def ranks(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns the share of the reference below each value; ties count half."""
  reference = np.sort(reference)
  below = np.searchsorted(reference, values, side='left')
  up_to = np.searchsorted(reference, values, side='right')
  return (below + up_to) / (2 * len(reference))


def standardise(reference: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Returns x [m d] in standard deviations of the reference [n d].

  A dimension that hardly varies among the reference is not blown up: no
  deviation counts as less than a tenth of their root mean square.
  """
  spread = reference.std(0)
  least = 0.1 * np.sqrt(np.square(spread).mean())
  spread = np.maximum(spread, least if least > 0 else 1.0)
  return (x - reference.mean(0)) / spread
