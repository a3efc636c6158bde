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

  def energy(self) -> float:
    """Returns the energy distance of the sets as a share; see the module."""
    return float(self._energies(self.first[None], self.second[None])[0])

  def _energies(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns it for other sets of the same rows.

    Args:
      first: [r n + m] how often each row counts as one of the first set. A row
        is never paired with itself.
      second: [r n + m] as one of the second.
    """
    sums = first @ self._apart
    between = (sums * second).sum(1) / (first.sum(1) * second.sum(1))
    within = _mean_within(first, sums)
    within += _mean_within(second, second @ self._apart)
    with np.errstate(invalid='ignore'):
      shares = (2 * between - within) / (2 * between)
    return np.where(between > 0, shares, 0.0)

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

    values = self._energies(
      *(
        np.stack([draw(members) for _ in range(repeats)])
        for members in (self.first, self.second)
      )
    )
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
    random = np.random.default_rng(seed)
    divisions = []
    for _ in range(repeats):
      order = random.permutation(len(sizes))
      ends = np.cumsum(sizes[order])
      # As near to the wanted size as whole videos come, with pairs on both
      # sides.
      away = np.abs(ends - wanted)
      away[(ends < 2) | (ends > total - 2)] = total
      count = 1 + np.argmin(away)
      if away[count - 1] == total:
        raise ValueError(
          f'{len(sizes)} videos of {total} clips cannot be divided: give more.'
        )
      divisions.append(np.isin(group, order[:count]))
    first = np.array(divisions, np.float64)
    return self._energies(first, 1 - first)


def _mean_within(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
  """Returns the mean distance between two rows of a set, for each of r sets.

  Args:
    counts: [r n] how often each row is in it.
    sums: [r n] summed distances from each row to the set's.
  """
  pairs = np.square(counts.sum(1)) - np.square(counts).sum(1)
  return (sums * counts).sum(1) / pairs


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
