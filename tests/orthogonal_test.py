import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdm.training import orthogonal

COEFFICIENTS = jnp.array([3.4445, -4.7750, 2.0315])
orthogonalize = jax.jit(orthogonal.orthogonalize)


def matrix(m, n, kind):
  """Returns a matrix of Frobenius norm 1, in float64."""
  rng = np.random.default_rng(m + n)
  x = rng.normal(size=(m, n))
  if kind == 'of low rank':
    x = rng.normal(size=(m, 5)) @ rng.normal(size=(5, n))
  if kind == 'ill-conditioned':
    u, s, v = np.linalg.svd(x, full_matrices=False)
    x = u * np.logspace(0, -7, len(s)) @ v
  return x / np.linalg.norm(x)


def exact(x):
  """Returns the iterations on each singular value, in float64."""
  u, s, v = np.linalg.svd(x, full_matrices=False)
  a, b, c = np.asarray(COEFFICIENTS, np.float64)
  for _ in range(orthogonal.STEPS):
    s = a * s + b * s**3 + c * s**5
  return u * s @ v


@jax.jit
def by_optax(x):
  """Returns Muon's direction for a first gradient, without momentum."""
  muon = optax.contrib.scale_by_muon(beta=0.0)
  return muon.update(x, muon.init(x))[0]


@pytest.mark.parametrize('kind', ['full', 'of low rank', 'ill-conditioned'])
@pytest.mark.parametrize(
  'shape', [(288, 32), (32, 32), (48, 32), (32, 288), (7, 1)]
)
def test_singular_values_are_mapped(shape, kind):
  x = matrix(*shape, kind)
  found = orthogonalize(jnp.asarray(x, jnp.float32), COEFFICIENTS)
  # float32 rounds by 6e-8, and the slope at zero is 485, which also cancels
  # where singular values are large.
  np.testing.assert_allclose(found, exact(x), atol=5e-4)
  if kind == 'full':
    other = by_optax(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, other, atol=1e-4)


def test_zero_stays_zero():
  found = orthogonalize(jnp.zeros((64, 16)), COEFFICIENTS)
  np.testing.assert_array_equal(found, 0)


def test_a_long_matrix_costs_less_than_half_of_iterations_on_it():
  x = jnp.zeros((27 * 32, 32))

  def operations(function):
    lowered = jax.jit(function).lower(x, COEFFICIENTS)
    return lowered.cost_analysis()['flops']

  found = operations(orthogonal.orthogonalize)
  wanted = operations(lambda x, _: by_optax(x))
  assert found < 0.4 * wanted
