"""Distances between two sets of vectors or values, without Gaussians.

The energy distance between distributions of vectors (Szekely and Rizzo 2013),

  2 E|x - y| - E|x - x'| - E|y - y'|,

is zero only where they are equal, and is the squared MMD with the kernel
-|x - y|. It is estimated without bias and divided by 2 E|x - y|, which gives a
share without unit: 0 for equal distributions and close to 1 for distant ones,
whatever the number of dimensions.

A permutation test says whether a distance exceeds chance. It moves all clips of
a video together, because windows of one video are not independent.
"""

from collections.abc import Sequence

from etils.array_types import FloatArray
import numpy as np


class Pooled:
  """Two sets of vectors and the distances between all pairs of them.

  Attributes:
    first: [n + m] 1 for rows of the first set, else 0.
    second: [n + m] 1 for rows of the second set, else 0.
  """

  def __init__(self, x: FloatArray['n d'], y: FloatArray['m d']):
    """Computes all distances between two sets of at least two vectors."""
    if min(len(x), len(y)) < 2:
      raise ValueError('An energy distance takes two clips of each set.')
    self._distances = _pairwise(np.concatenate([x, y]).astype(np.float64))
    self.first = (np.arange(len(x) + len(y)) < len(x)).astype(np.float64)
    self.second = 1 - self.first

  def energy(self) -> float:
    """Returns the energy distance as a share; see the module."""
    return float(self._energies(self.first[None], self.second[None])[0])

  def _energies(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the energy distances [r] of other sets of the same rows.

    Args:
      first: [r n + m] how often each row is in the first set. A row is never
        paired with itself.
      second: [r n + m] how often each row is in the second set.
    """
    sums = first @ self._distances
    between = (sums * second).sum(1) / (first.sum(1) * second.sum(1))
    within = _mean_within(first, sums)
    within += _mean_within(second, second @ self._distances)
    with np.errstate(invalid='ignore'):
      shares = (2 * between - within) / (2 * between)
    return np.where(between > 0, shares, 0.0)

  def interval(
    self, *, repeats: int = 200, level: float = 0.95, seed: int = 0
  ) -> tuple[float, float]:
    """Returns a bootstrap interval of `energy`."""
    random = np.random.default_rng(seed)

    def draw(members):
      rows = np.flatnonzero(members)
      drawn = random.choice(rows, len(rows))
      while (drawn == drawn[0]).all():  # One row has no pairs.
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
  ) -> FloatArray[' r']:
    """Returns `energy` of `repeats` random divisions of all rows.

    Args:
      groups: [n + m] names of the videos that clips come from; clips of a video
        stay together. By default each clip is a group.
      repeats: number of divisions.
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
      # The closest to the wanted size that whole videos allow, with at least
      # two rows on both sides.
      error = np.abs(ends - wanted)
      error[(ends < 2) | (ends > total - 2)] = total
      count = 1 + np.argmin(error)
      if error[count - 1] == total:
        raise ValueError(
          f'{len(sizes)} videos of {total} clips cannot be divided: give more.'
        )
      divisions.append(np.isin(group, order[:count]))
    first = np.array(divisions, np.float64)
    return self._energies(first, 1 - first)


def _mean_within(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
  """Returns the mean distance [r] between two rows of each of r sets.

  Args:
    counts: [r n] how often each row is in the set.
    sums: [r n] sum of the distances from each row to the set's rows.
  """
  pairs = np.square(counts.sum(1)) - np.square(counts).sum(1)
  return (sums * counts).sum(1) / pairs


def _doubled_ranks(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns twice the number of the reference below each value."""
  reference = np.sort(reference)
  below = np.searchsorted(reference, values, side='left')
  return below + np.searchsorted(reference, values, side='right')


def _pairwise(x: np.ndarray) -> np.ndarray:
  """Returns the Euclidean distances between the rows of x [n d]."""
  x = x - x.mean(0)  # Against cancellation.
  norms = np.square(x).sum(1)
  squares = norms[:, None] + norms[None] - 2 * x @ x.T
  np.fill_diagonal(squares, 0)
  return np.sqrt(np.maximum(squares, 0))


def wasserstein(x: FloatArray[' n'], y: FloatArray[' m']) -> float:
  """Returns the Wasserstein-1 distance, in the unit of the values.

  It is the area between the distribution functions.
  """
  x, y = np.sort(x), np.sort(y)
  every = np.sort(np.concatenate([x, y]))
  shares = [
    np.searchsorted(values, every[:-1], side='right') / len(values)
    for values in (x, y)
  ]
  return float((np.abs(shares[0] - shares[1]) * np.diff(every)).sum())


def auc(x: FloatArray[' n'], y: FloatArray[' m']) -> float:
  """Returns the probability that a value of y exceeds one of x.

  Ties count half. The two-sided separation is max(auc, 1 - auc).
  """
  return float(_doubled_ranks(x, y).mean() / (2 * len(x)))


def ranks(
  reference: FloatArray[' n'], values: FloatArray[' m']
) -> FloatArray[' m']:
  """Returns the share of the reference below each value; ties count half."""
  return _doubled_ranks(reference, values) / (2 * len(reference))


def standardise(
  reference: FloatArray['n d'], x: FloatArray['m d']
) -> FloatArray['m d']:
  """Returns x in means and standard deviations of the reference.

  The deviation of a dimension counts as at least a tenth of their root mean
  square, so that a dimension that hardly varies is not amplified.
  """
  spread = reference.std(0)
  least = 0.1 * np.sqrt(np.square(spread).mean())
  spread = np.maximum(spread, least if least > 0 else 1.0)
  return (x - reference.mean(0)) / spread
