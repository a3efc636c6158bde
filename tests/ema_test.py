"""Averages against their weights in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from vdm.common import power_averages
from vdm.training import ema


def weights(n, exponent):
  """What each of n values weighs after n updates, by hand, in float64.

  The products of beta telescope: value k keeps (k / n)^(gamma + 1) of itself
  and had 1 - ((k - 1) / k)^(gamma + 1).
  """
  k = np.arange(n + 1, dtype=np.float64)
  return np.diff((k / n) ** (exponent + 1))


@pytest.mark.parametrize('sigma_rel', [0.05, 0.10, 0.25])
def test_average_is_the_weighted_sum(sigma_rel):
  values = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
  exponent = power_averages.gamma(sigma_rel)
  average = jnp.full(3, 1e3, jnp.float32)  # Forgotten at the first update.
  for count, value in enumerate(values, 1):
    average = ema.update(average, value, jnp.int32(count), exponent)
  wanted = weights(60, exponent) @ values
  np.testing.assert_allclose(average, wanted, atol=1e-5)


@pytest.mark.parametrize('sigma_rel', [0.05, 0.10, 0.25])
def test_weights_have_the_profile_and_its_width(sigma_rel):
  exponent = power_averages.gamma(sigma_rel)
  n = 2000
  found = weights(n, exponent)
  k = np.arange(1, n + 1)
  power = k**exponent / (k**exponent).sum()
  # A step is discretised to 1/n of the whole: gamma / n of a weight.
  np.testing.assert_allclose(found[n // 2 :], power[n // 2 :], rtol=0.02)
  assert abs(found.sum() - 1) < 1e-12
  mean = found @ (k / n)
  deviation = np.sqrt(found @ (k / n - mean) ** 2)
  np.testing.assert_allclose(deviation, sigma_rel, rtol=0.01)


def test_gamma_inverts_the_width():
  for sigma_rel in (0.01, 0.05, 0.10, 0.28):
    g = power_averages.gamma(sigma_rel)
    width = np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3)))
    np.testing.assert_allclose(width, sigma_rel, rtol=1e-9)
  # EDM2's table of pairs: 6.94 is the classical choice.
  np.testing.assert_allclose(power_averages.gamma(0.10), 6.94, atol=0.01)
  np.testing.assert_allclose(power_averages.gamma(0.05), 16.97, atol=0.01)
  with pytest.raises(ValueError, match='no wider than 0.28'):
    power_averages.gamma(0.3)


def test_first_update_is_the_live_value():
  value = jnp.array([0.1, -3.0])
  first = ema.update(
    jnp.array([7.0, 7.0]), value, jnp.int32(1), power_averages.gamma(0.1)
  )
  np.testing.assert_array_equal(first, value)
