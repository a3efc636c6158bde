"""Frechet and kernel distances between two sets of features.

The Frechet distance between Gaussians fitted to the sets is

  |m_a - m_b|^2 + Tr S_a + Tr S_b - 2 Tr (S_a^1/2 S_b S_a^1/2)^1/2

(Heusel et al. 2017 for images, Unterthiner et al. 2018 for videos, where the
features are the 400 logits of I3D and the name is FVD). The last trace is the
nuclear norm of A^T B for any A A^T = S_a and B B^T = S_b: it is computed so,
with roots from `eigh` or from the centred features themselves. No root of a
product is taken, so rank-deficient covariances (fewer clips than features) lose
no digits.

The estimate is biased by about b / N and sets of other sizes must not be
compared. `frechet_infinity` removes that term by extrapolation (Chong and
Forsyth 2020), and `kernel_distance` (KVD: cubic kernel (x y / d + 1)^3, U-
statistic; Binkowski et al. 2018) has none.

Everything is float64. Features are any [n d]; nothing here knows a network.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
  """What a Gaussian is fitted from; sums, so that parts can be merged.

  Attributes:
    count: features seen.
    mean: [d] float64.
    scatter: [d d] float64, sum of the outer products of deviations.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray


def moments(features: np.ndarray) -> Moments:
  """Returns the moments of features [n d].

  Raises:
    ValueError: they are no finite matrix of at least one row.
  """
  features = _checked(features)
  mean = features.mean(0)
  away = features - mean
  return Moments(len(features), mean, away.T @ away)


def merge(a: Moments, b: Moments) -> Moments:
  """Returns the moments of both sets together (Chan et al. 1979)."""
  count = a.count + b.count
  apart = b.mean - a.mean
  return Moments(
    count,
    a.mean + apart * (b.count / count),
    a.scatter
    + b.scatter
    + np.outer(apart, apart) * (a.count * b.count / count),
  )


def covariance(moments: Moments, unbiased: bool = False) -> np.ndarray:
  """Returns the covariance [d d], over N or, unbiased, over N - 1."""
  return moments.scatter / _divisor(moments.count, unbiased)


def frechet(a: Moments, b: Moments, *, unbiased: bool = False) -> float:
  """Returns the Frechet distance between the Gaussians of two sets.

  Args:
    a: moments of one set.
    b: of the other.
    unbiased: covariances over N - 1 (TF-GAN, VideoGPT), not N (StyleGAN-V).
  """
  roots = [_root(covariance(m, unbiased)) for m in (a, b)]
  apart = np.square(a.mean - b.mean).sum()
  traces = [np.square(root).sum() for root in roots]
  return float(apart + sum(traces) - 2 * _nuclear_norm(roots[0].T @ roots[1]))


def frechet_of_features(
  x: np.ndarray, y: np.ndarray, *, unbiased: bool = False
) -> float:
  """Returns the same distance from features [n d] and [m d].

  Takes whichever form is the smaller: d x d roots, or the n x m matrix of the
  centred features, which is cheap with fewer clips than features.
  """
  x, y = _checked(x), _checked(y)
  if max(len(x), len(y)) > x.shape[1]:
    return frechet(moments(x), moments(y), unbiased=unbiased)
  means = x.mean(0), y.mean(0)
  a = (x - means[0]) / _divisor(len(x), unbiased) ** 0.5
  b = (y - means[1]) / _divisor(len(y), unbiased) ** 0.5
  apart = np.square(means[0] - means[1]).sum()
  traces = np.square(a).sum() + np.square(b).sum()
  return float(apart + traces - 2 * _nuclear_norm(a @ b.T))


def frechet_infinity(
  x: np.ndarray,
  y: np.ndarray,
  *,
  sizes: int = 8,
  repeats: int = 2,
  seed: int = 0,
  unbiased: bool = False,
) -> float:
  """Returns the Frechet distance extrapolated to sets without end.

  Random parts of both sets, of N = a quarter of the smaller one up to all of
  it, spaced evenly in 1 / N: the intercept of a line fitted over 1 / N.

  Args:
    x: features [n d].
    y: features [m d].
    sizes: how many N.
    repeats: random parts at each N.
    seed: of the parts.
    unbiased: as for `frechet`.

  Raises:
    ValueError: there are fewer than 16 features in a set.
  """
  x, y = _checked(x), _checked(y)
  most = min(len(x), len(y))
  if most < 16:
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
  x: np.ndarray, y: np.ndarray, *, block: int = 1024
) -> float:
  """Returns the squared MMD with the kernel (x y / d + 1)^3, unbiased.

  Memory is that of `block` rows. The value may be slightly negative.

  Args:
    x: features [n d], n at least 2.
    y: features [m d], m at least 2.
    block: rows at a time.
  """
  x, y = _checked(x), _checked(y)
  if min(len(x), len(y)) < 2:
    raise ValueError('A U-statistic takes two features of each set or more.')

  def total(a, b):
    return sum(
      cubic_kernel(a[i : i + block], b).sum() for i in range(0, len(a), block)
    )

  def within(a):
    own = ((np.square(a).sum(1) / a.shape[1] + 1) ** 3).sum()
    return (total(a, a) - own) / (len(a) * (len(a) - 1))

  return float(within(x) + within(y) - 2 * total(x, y) / (len(x) * len(y)))


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns (x y / d + 1)^3 for rows of x [n d] and y [m d]: [n m]."""
  return (x @ y.T / x.shape[1] + 1) ** 3


def bootstrap(
  statistic: Callable[[np.ndarray, np.ndarray], float],
  x: np.ndarray,
  y: np.ndarray,
  *,
  repeats: int = 100,
  level: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns an interval of a statistic of two sets, drawing clips anew.

  Clips drawn twice make sets look smaller than they are and so raise a biased
  statistic: the quantiles are taken about the draws' mean and put about the
  value itself.

  Args:
    statistic: (x, y) -> number.
    x: features [n d].
    y: features [m d].
    repeats: draws.
    level: share of the draws within.
    seed: of the draws.
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
    raise ValueError('Some features are not finite: look at the network.')
  return features


def _divisor(count: int, unbiased: bool) -> int:
  if unbiased and count < 2:
    raise ValueError('An unbiased covariance takes two features or more.')
  return count - 1 if unbiased else count


def _root(matrix: np.ndarray) -> np.ndarray:
  """Returns A [d r] with A A^T = `matrix`, of the numerical rank r."""
  values, vectors = np.linalg.eigh(matrix)
  kept = values > max(values[-1], 0) * len(values) * np.finfo(float).eps
  return vectors[:, kept] * np.sqrt(values[kept])


def _nuclear_norm(matrix: np.ndarray) -> float:
  if not matrix.size:
    return 0.0
  return np.linalg.svd(matrix, compute_uv=False).sum()
