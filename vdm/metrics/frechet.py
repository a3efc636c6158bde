"""Frechet and kernel distances between two sets of features.

The Frechet distance between Gaussians fitted to the sets is

  |m_a - m_b|^2 + Tr S_a + Tr S_b - 2 Tr (S_a^1/2 S_b S_a^1/2)^1/2

(Heusel et al. 2017 for images; Unterthiner et al. 2018 for videos, where the
features are the 400 logits of I3D and the distance is called FVD). The last
trace is the nuclear norm of A^T B for any A A^T = S_a and B B^T = S_b, and is
computed as such, with roots from `eigh` or from the centred features
themselves. No square root of a product is taken, so rank-deficient covariances
(fewer clips than features) lose no precision.

The estimate has a bias of about b / N: only distances of equally many clips can
be compared. `frechet_infinity` removes that term by extrapolation (Chong and
Forsyth 2020). `kernel_distance` (KVD: cubic kernel (x y / d + 1)^3, U-
statistic; Binkowski et al. 2018) has no bias.

Everything is computed in float64. Features are [n d], of any network.
"""

from collections.abc import Callable
from typing import NamedTuple

from etils.array_types import FloatArray
import numpy as np

LEAST_TO_EXTRAPOLATE = 16  # Features of a set, for `frechet_infinity`.


class Moments(NamedTuple):
  """What a Gaussian is fitted from.

  Attributes:
    count: number of features.
    mean: their mean.
    scatter: sum of the outer products of their deviations from it.
  """

  count: int
  mean: FloatArray[' d']
  scatter: FloatArray['d d']


def moments(features: FloatArray['n d']) -> Moments:
  """Returns the moments of features.

  Raises:
    ValueError: they are not a finite matrix of at least one row.
  """
  features = _checked(features)
  mean = features.mean(0)
  centred = features - mean
  return Moments(len(features), mean, centred.T @ centred)


def covariance(moments: Moments, unbiased: bool = False) -> FloatArray['d d']:
  """Returns the covariance, over N or, if unbiased, over N - 1."""
  return moments.scatter / _divisor(moments.count, unbiased)


def frechet(a: Moments, b: Moments, *, unbiased: bool = False) -> float:
  """Returns the Frechet distance between the Gaussians of two sets.

  Args:
    a: moments of the first set.
    b: moments of the second set.
    unbiased: covariances over N - 1 (TF-GAN, VideoGPT), not N (StyleGAN-V).
  """
  roots = [_root(covariance(m, unbiased)) for m in (a, b)]
  shift = np.square(a.mean - b.mean).sum()
  traces = [np.square(root).sum() for root in roots]
  return float(shift + sum(traces) - 2 * _nuclear_norm(roots[0].T @ roots[1]))


def frechet_of_features(
  x: FloatArray['n d'], y: FloatArray['m d'], *, unbiased: bool = False
) -> float:
  """Returns the Frechet distance between two sets of features.

  Uses the smaller form: d x d roots, or the n x m matrix of the centred
  features, which is cheap with fewer clips than features.
  """
  x, y = _checked(x), _checked(y)
  if max(len(x), len(y)) > x.shape[1]:
    return frechet(moments(x), moments(y), unbiased=unbiased)
  means = x.mean(0), y.mean(0)
  a = (x - means[0]) / _divisor(len(x), unbiased) ** 0.5
  b = (y - means[1]) / _divisor(len(y), unbiased) ** 0.5
  shift = np.square(means[0] - means[1]).sum()
  traces = np.square(a).sum() + np.square(b).sum()
  return float(shift + traces - 2 * _nuclear_norm(a @ b.T))


def frechet_infinity(
  x: FloatArray['n d'],
  y: FloatArray['m d'],
  *,
  sizes: int = 8,
  repeats: int = 2,
  seed: int = 0,
  unbiased: bool = False,
) -> float:
  """Returns the Frechet distance extrapolated to infinitely many features.

  It is the intercept of a line fitted over 1 / N to the distances of random
  subsets of N features, with N from a quarter of the smaller set to all of it,
  evenly spaced in 1 / N.

  Args:
    x: features of the first set.
    y: features of the second set.
    sizes: number of different N.
    repeats: random subsets of each size.
    seed: of the subsets.
    unbiased: as for `frechet`.

  Raises:
    ValueError: a set has fewer than `LEAST_TO_EXTRAPOLATE` features.
  """
  x, y = _checked(x), _checked(y)
  most = min(len(x), len(y))
  if most < LEAST_TO_EXTRAPOLATE:
    raise ValueError(f'{most} features are too few to extrapolate from.')
  random = np.random.default_rng(seed)
  inverse = np.linspace(4 / most, 1 / most, sizes)
  points, values = [], []
  for n in np.rint(1 / inverse).astype(int):
    for _ in range(repeats):
      rows = [random.choice(len(z), n, replace=False) for z in (x, y)]
      points.append(1 / n)
      values.append(
        frechet_of_features(x[rows[0]], y[rows[1]], unbiased=unbiased)
      )
  return float(np.polyfit(points, values, 1)[1])


def kernel_distance(
  x: FloatArray['n d'], y: FloatArray['m d'], *, block: int = 1024
) -> float:
  """Returns the unbiased squared MMD with the kernel (x y / d + 1)^3.

  The value can be slightly negative.

  Args:
    x: features of the first set, at least 2.
    y: features of the second set, at least 2.
    block: rows of the kernel matrix that are in memory at a time.
  """
  x, y = _checked(x), _checked(y)
  if min(len(x), len(y)) < 2:
    raise ValueError('A U-statistic takes at least two features of each set.')

  def total(a, b):
    return sum(
      _cubic_kernel(a[i : i + block], b).sum() for i in range(0, len(a), block)
    )

  def within(a):
    own = ((np.square(a).sum(1) / a.shape[1] + 1) ** 3).sum()
    return (total(a, a) - own) / (len(a) * (len(a) - 1))

  return float(within(x) + within(y) - 2 * total(x, y) / (len(x) * len(y)))


def bootstrap(
  statistic: Callable[..., float],
  x: FloatArray['n d'],
  y: FloatArray['m d'],
  *,
  repeats: int = 100,
  level: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns a bootstrap interval of a statistic of two sets.

  A resample holds some clips twice, which raises a biased statistic as a
  smaller set would: the quantiles are therefore taken relative to the mean of
  the resamples and added to the value itself.

  Args:
    statistic: (x, y) -> number.
    x: features of the first set.
    y: features of the second set.
    repeats: number of resamples.
    level: coverage of the interval.
    seed: of the resamples.
  """
  random = np.random.default_rng(seed)
  values = np.array(
    [
      statistic(*(z[random.integers(len(z), size=len(z))] for z in (x, y)))
      for _ in range(repeats)
    ]
  )
  edges = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
  low, high = statistic(x, y) + edges - values.mean()
  return float(low), float(high)


def _checked(features) -> np.ndarray:
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or not len(features):
    raise ValueError(
      f'Features are [n d] with n at least 1, not {features.shape}.'
    )
  if not np.isfinite(features).all():
    raise ValueError(
      'Some features are not finite: check the network and its weights.'
    )
  return features


def _divisor(count: int, unbiased: bool) -> int:
  if unbiased and count < 2:
    raise ValueError('An unbiased covariance takes at least two features.')
  return count - 1 if unbiased else count


def _root(matrix: np.ndarray) -> np.ndarray:
  """Returns A [d r] with A A^T = `matrix`, of the numerical rank r."""
  values, vectors = np.linalg.eigh(matrix)
  nonzero = values > max(values[-1], 0) * len(values) * np.finfo(float).eps
  return vectors[:, nonzero] * np.sqrt(values[nonzero])


def _cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns (x y / d + 1)^3 for rows of x [n d] and y [m d]: [n m]."""
  return (x @ y.T / x.shape[1] + 1) ** 3


def _nuclear_norm(matrix: np.ndarray) -> float:
  if not matrix.size:
    return 0.0
  return np.linalg.svd(matrix, compute_uv=False).sum()
