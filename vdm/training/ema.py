"""Power-function averages of parameters (Karras et al., 2312.02696, EDM2).

After update n an average holds theta_k with weight proportional to k^gamma:

  average_n = beta_n average_(n-1) + (1 - beta_n) theta_n,
  beta_n = (1 - 1 / n)^(gamma + 1).                          (eq. 127)

Its width is a fixed share `sigma_rel` of the training so far, however long
that is. n counts the updates of the parameter itself: a new parameter's
average starts at its live value, and a frozen one's stays what it is.
`common.power_averages` has gamma and makes other widths of stored averages.
"""

from etils.array_types import FloatArray, IntArray
import jax.numpy as jnp


def update(
  average: FloatArray['*n'],
  value: FloatArray['*n'],
  count: IntArray[''],
  exponent: float,
) -> FloatArray['*n']:
  """Returns a parameter's average after its `count`-th update, from 1."""
  beta = (1.0 - 1.0 / count.astype(jnp.float32)) ** (exponent + 1.0)
  return value + beta * (average - value)
