"""Power-function averages of parameters (Karras et al., 2312.02696, EDM2).

After update n an average holds theta_k with weight proportional to k^gamma:

  average_n = beta_n average_(n-1) + (1 - beta_n) theta_n,
  beta_n = (1 - 1 / n)^(gamma + 1).                          (eq. 127)

Its width is a fixed share `sigma_rel` of the training so far, however long
that is. n counts the updates of the parameter itself: a new parameter's
average starts at its live value, and a frozen one's stays what it is.
"""

from etils.array_types import FloatArray, IntArray
import jax.numpy as jnp
import numpy as np


def gamma(sigma_rel: float) -> float:
  """Returns the exponent whose average is `sigma_rel` wide (eq. 126).

  sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), solved as a cubic.

  Args:
    sigma_rel: standard deviation of k / n under the weights, in (0, 0.28).

  Raises:
    ValueError: no such average is wider than 0.28.
  """
  inverse = sigma_rel**-2.0
  roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
  largest = max(root.real for root in roots if abs(root.imag) < 1e-9)
  if largest < 0:
    raise ValueError(f'An average is no wider than 0.28, not {sigma_rel}.')
  return largest


def update(
  average: FloatArray['*n'],
  value: FloatArray['*n'],
  count: IntArray[''],
  exponent: float,
) -> FloatArray['*n']:
  """Returns a parameter's average after its `count`-th update, from 1."""
  beta = (1.0 - 1.0 / count.astype(jnp.float32)) ** (exponent + 1.0)
  return value + beta * (average - value)
