"""Newton-Schulz iterations on the smaller side of a matrix, for Muon.

An iteration multiplies X by b(X'X), a quadratic polynomial (Jordan et al.,
2024). All of them multiply it by one polynomial of G = X'X, which is found
without X: only G and the final product touch the long side. Kernels of
convolutions are much longer than wide, [(kh kw cin) cout].
"""

from etils.array_types import FloatArray
import jax

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
  a, b, c = coefficients
  # In products of two matrices [n n], an iteration costs 2 m / n + 1 on X, and
  # all five cost 17 + 2 m / n on G.
  if 2 * x.shape[0] < 3 * x.shape[1]:
    for _ in range(STEPS):
      g = x.T @ x
      x = a * x + x @ (b * g + c * (g @ g))
    return x
  # A singular value of 1e-3 is 1e-6 in G: half the digits would lose it, and
  # what falls below zero would grow. In the last line hundreds cancel.
  with jax.default_matmul_precision('highest'):
    g = x.T @ x
    # X times a I + step is the next X; all steps are share I + rest.
    share, rest = a, b * g + c * (g @ g)
    step = rest
    for _ in range(STEPS - 1):
      g = a * g + g @ step
      g = a * g + step @ g  # All of these matrices commute.
      step = b * g + c * (g @ g)
      rest = share * step + a * rest + rest @ step
      share = a * share
    return share * x + x @ rest
