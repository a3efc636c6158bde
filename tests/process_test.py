"""The process against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.diffusion import process

SHAPE = (2, 3, 4, 4, 2)
LEVELS = np.array([[-40, -8, -1], [0, 6, 40]], np.float32)


def draw():
  generator = np.random.default_rng(0)
  x0, eps = generator.normal(size=(2, *SHAPE)).astype(np.float32)
  return x0, eps


def coefficients(levels):
  """alpha and sigma in float64, with axes for (h w c)."""
  levels = levels.astype(np.float64)[..., None, None, None]
  return (1 + np.exp(-levels)) ** -0.5, (1 + np.exp(levels)) ** -0.5


def test_alpha_and_sigma_are_accurate_at_both_ends():
  levels = np.linspace(-40, 40, 161)
  alpha, sigma = process.alpha_sigma(levels.astype(np.float32))
  # Relative, so that alpha at -40 and sigma at 40 (2e-9) count in full.
  np.testing.assert_allclose(alpha, (1 + np.exp(-levels)) ** -0.5, rtol=1e-6)
  np.testing.assert_allclose(sigma, (1 + np.exp(levels)) ** -0.5, rtol=1e-6)


def test_noising_mixes_and_copies_clean_frames_exactly():
  x0, eps = draw()
  x0[1, 2] *= 1e-6  # Small enough for a noise of 2e-9 to be seen.
  z = process.add_noise(x0, eps, LEVELS)
  alpha, sigma = coefficients(LEVELS)
  np.testing.assert_allclose(z, alpha * x0 + sigma * eps, rtol=0, atol=1e-6)
  assert np.array_equal(z[1, 2], x0[1, 2])
  assert not np.array_equal(z[1, 1], x0[1, 1])
  half = process.add_noise(x0.astype(jnp.bfloat16), eps, LEVELS)
  assert half.dtype == jnp.float32


def test_targets_are_their_definitions():
  x0, eps = draw()
  alpha, sigma = coefficients(LEVELS)
  v = alpha * eps - sigma * x0
  # Of data of deviation 1, edm is v.
  wanted = dict(x0=x0, eps=eps, v=v, flow=eps - x0, edm=v)
  for kind in process.PREDICTIONS:
    target = process.from_x0_eps(kind, x0, eps, LEVELS)
    np.testing.assert_allclose(target, wanted[kind], rtol=0, atol=1e-6)


@pytest.mark.parametrize('sigma_data', [0.25, 0.5, 2.0])
def test_edm_is_the_preconditioning_of_its_paper(sigma_data):
  """D(y) = c_skip y + c_out F, table 1; ours is -sigma_data F."""
  x0, eps = draw()
  levels = np.array([[-12, -3, -1], [0, 3, 12]], np.float32)
  alpha, sigma = coefficients(levels)
  z, time = alpha * x0 + sigma * eps, sigma / alpha
  square = time**2 + sigma_data**2
  c_skip, c_out = sigma_data**2 / square, time * sigma_data * square**-0.5
  output = process.from_x0_eps('edm', x0, eps, levels, sigma_data)
  wanted = -sigma_data * (x0 - c_skip * z / alpha) / c_out
  np.testing.assert_allclose(output, wanted, rtol=0, atol=5e-5)
  random = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
  found = process.to_x0('edm', random, z, levels, sigma_data)
  denoised = c_skip * z / alpha - c_out * random / sigma_data
  np.testing.assert_allclose(found, denoised, rtol=0, atol=2e-5)


@pytest.mark.parametrize('source', process.PREDICTIONS)
@pytest.mark.parametrize('target', process.PREDICTIONS)
def test_any_prediction_gives_any_other(source, target):
  sigma_data = 0.3
  # z need not come from the output: a network's is only ever close.
  z, output = draw()
  levels = np.array([[-8, -3, -1], [0, 3, 8]], np.float32)
  there = process.convert(source, target, output, z, levels, sigma_data)
  back = process.convert(target, source, there, z, levels, sigma_data)
  # x0 and eps lose a factor of e^4 each way between these levels.
  np.testing.assert_allclose(back, output, rtol=0, atol=2e-3)
  # What both mean: the same clip and noise, which make up z.
  x0, eps = process.to_x0_eps(source, output, z, levels, sigma_data)
  alpha, sigma = coefficients(levels)
  np.testing.assert_allclose(alpha * x0 + sigma * eps, z, rtol=0, atol=2e-5)


def test_all_but_eps_give_x0_at_pure_noise_and_clean():
  x0, eps = draw()
  z = process.add_noise(x0, eps, LEVELS)
  for kind in set(process.PREDICTIONS) - {'eps'}:
    output = process.from_x0_eps(kind, x0, eps, LEVELS, 0.3)
    again = process.to_x0(kind, output, z, LEVELS, 0.3)
    np.testing.assert_allclose(again, x0, rtol=0, atol=2e-6)


def test_noise_of_a_row_depends_on_its_own_key_alone():
  keys = jax.vmap(jax.random.key)(jnp.arange(4, dtype=jnp.uint32))
  together = process.noise(keys, (4, 3, 2, 2, 1))
  alone = process.noise(keys[2:3], (1, 3, 2, 2, 1))
  assert np.array_equal(together[2:3], alone)
  assert not np.array_equal(together[0], together[1])
  one = process.noise(jax.random.key(0), (64, 4, 8, 8, 2))
  assert one.dtype == jnp.float32
  # 32 768 values: 4 standard errors of mean and variance.
  assert abs(one.mean()) < 4 / 181
  assert abs(one.var() - 1) < 4 * 2**0.5 / 181
  with pytest.raises(ValueError, match='jax.random.key'):
    process.noise(jax.random.PRNGKey(0), (2, 1))
  with pytest.raises(ValueError, match='give one a row'):
    process.noise(keys, (3, 1))


def test_unknown_prediction_is_refused():
  x0, eps = draw()
  with pytest.raises(ValueError, match='Unknown prediction'):
    process.from_x0_eps('score', x0, eps, LEVELS)
  with pytest.raises(ValueError, match='Unknown prediction'):
    process.to_x0('score', x0, eps, LEVELS)


def test_level_of_sigma_is_the_inverse():
  levels = np.linspace(-12, 20, 65).astype(np.float32)
  sigma = process.alpha_sigma(levels)[1]
  # float32 has no more digits of sigma near 1.
  np.testing.assert_allclose(
    process.level_of_sigma(sigma), levels, rtol=1e-3, atol=0.05
  )
  ends = process.level_of_sigma(np.array([0.0, 1.0], np.float32))
  np.testing.assert_array_equal(ends, [process.CLEAN, process.NOISE])
