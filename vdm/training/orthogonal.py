"""Newton-Schulz iterations on the smaller side of a matrix, for Muon.

An iteration multiplies X by b(X'X), a quadratic polynomial (Jordan et al.,
2024). All of them multiply it by one polynomial of G = X'X, which is found
without X: only G and the final product touch the long side. Kernels of
convolutions are much longer than wide, [(kh kw cin) cout].
"""

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp

STEPS = 5


def orthogonalize(
  x: FloatArray['m n'], coefficients: FloatArray['3']
) -> FloatArray['m n']:
  """Returns a matrix whose singular values are brought near to one.

  Args:
    x: of Frobenius norm 1, or zero.
    coefficients: a, b and c of a step, s -> a s + b s^3 + c s^5 of each
      singular value.
  """
  if x.shape[0] < x.shape[1]:
    return orthogonalize(x.T, coefficients).T
  # Products of the smaller matrices: 17 are as much work as the 20 of X they
  # replace, of twice the size at a ratio of two.
  if x.shape[0] < 2 * x.shape[1]:
    for _ in range(STEPS):
      x = x @ _factor(x.T @ x, coefficients)
    return x
  # A singular value of 1e-3 is 1e-6 in G: half the digits would lose it, and
  # what falls below zero would grow.
  with jax.default_matmul_precision('highest'):
    g = x.T @ x
    total = factor = _factor(g, coefficients)
    for _ in range(STEPS - 1):
      # X becomes X factor, and all of these commute.
      g = factor @ (g @ factor)
      factor = _factor(g, coefficients)
      total = total @ factor
  return x @ total


def _factor(
  g: FloatArray['n n'], coefficients: FloatArray['3']
) -> FloatArray['n n']:
  a, b, c = coefficients
  return a * jnp.eye(len(g), dtype=g.dtype) + b * g + c * (g @ g)
