"""The best linear denoiser of a data set: what a network has to beat.

Of x with mean m and covariance C, and z = alpha x + sigma eps, the linear
function of z with the least squared error is

  x_hat = m + C alpha (alpha^2 C + sigma^2)^-1 (z - alpha m).

C is probabilistic PCA's (Tipping and Bishop 1999): the principal components of
some clips, and one variance for all directions that they leave out. Clips that
it was not fitted to are denoised worse the fewer it was fitted to.
"""

from typing import NamedTuple

from etils.array_types import FloatArray
import numpy as np


class Linear(NamedTuple):
  """A Gaussian fitted to vectors.

  Attributes:
    mean: of the vectors.
    components: orthonormal.
    variances: along them, the largest first.
    rest: variance along every other direction.
  """

  mean: FloatArray[' d']
  components: FloatArray['k d']
  variances: FloatArray[' k']
  rest: float


def fit(x: FloatArray['n d']) -> Linear:
  """Fits as many components as explain 0.99 of the variance, n / 2 at most.

  Raises:
    ValueError: there are fewer than four vectors.
  """
  n, d = x.shape
  if n < 4:
    raise ValueError(f'Four vectors are needed at least, not {n}.')
  x = np.asarray(x, np.float64)
  mean = x.mean(axis=0)
  _, values, components = np.linalg.svd(x - mean, full_matrices=False)
  values = values**2 / (n - 1)
  explained = np.cumsum(values) / max(values.sum(), 1e-300)
  k = min(int(np.searchsorted(explained, 0.99)) + 1, n // 2, d)
  rest = values[k:].sum() / max(d - k, 1)
  return Linear(mean, components[:k], values[:k], float(rest))


def denoise(
  linear: Linear, z: FloatArray['n d'], log_snr: float
) -> FloatArray['n d']:
  """Returns the expected clean vectors of noised ones.

  Args:
    linear: see `fit`.
    z: alpha x + sigma noise, alpha^2 + sigma^2 = 1.
    log_snr: log(alpha^2 / sigma^2).
  """
  alpha = np.sqrt(1 / (1 + np.exp(-log_snr)))
  variance = 1 / (1 + np.exp(log_snr))

  def gain(c):
    return c * alpha / (alpha**2 * c + variance)

  centred = np.asarray(z, np.float64) - alpha * linear.mean
  along = centred @ linear.components.T
  change = (gain(linear.variances) - gain(linear.rest)) * along
  return linear.mean + gain(linear.rest) * centred + change @ linear.components
