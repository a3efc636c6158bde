"""The autoencoder's losses, per example, against numpy."""

import jax.numpy as jnp
import numpy as np

from vdm.models.autoencoders import losses


def videos():
  random = np.random.default_rng(0)
  return random.uniform(-1, 1, (2, 3, 2, 8, 8, 3)).astype(np.float32)


def test_l1_l2_and_multiscale_l1():
  x, y = videos()
  np.testing.assert_allclose(
    losses.l1(jnp.asarray(x), jnp.asarray(y)),
    np.abs(x - y).mean(axis=(1, 2, 3, 4)),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    losses.l2(jnp.asarray(x), jnp.asarray(y)),
    np.square(x - y).mean(axis=(1, 2, 3, 4)),
    rtol=1e-5,
  )
  expected = 0.0
  for factor in (2, 4):
    n = 8 // factor
    small = (x - y).reshape(3, 2, n, factor, n, factor, 3).mean(axis=(3, 5))
    expected = expected + np.abs(small).mean(axis=(1, 2, 3, 4))
  np.testing.assert_allclose(
    losses.multiscale_l1(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-5
  )


def test_kl_is_that_of_two_gaussians():
  # By quadrature of q log(q / p), for mean 0.7 and deviation 0.3.
  mean, std = 0.7, 0.3
  z = np.linspace(-3, 4, 20001)
  q = np.exp(-0.5 * ((z - mean) / std) ** 2) / std
  p = np.exp(-0.5 * z**2)
  expected = (q * np.log(q / p)).sum() * (z[1] - z[0]) / np.sqrt(2 * np.pi)
  ones = jnp.ones((2, 1, 2, 2, 1))
  np.testing.assert_allclose(
    losses.kl(mean * ones, 2 * np.log(std) * ones), expected, rtol=1e-5
  )


def test_psnr():
  x, y = 0.5 * videos()
  mse = np.square(x - y).mean(axis=(1, 2, 3, 4))
  np.testing.assert_allclose(
    losses.psnr(jnp.asarray(x), jnp.asarray(y)),
    10 * np.log10(4 / mse),
    rtol=1e-5,
  )
  # Beyond the range of pixels nothing is lost.
  ones = jnp.ones((1, 1, 2, 2, 3))
  np.testing.assert_allclose(
    losses.psnr(1.5 * ones, ones), 100 + 10 * np.log10(4), rtol=1e-6
  )


def test_reductions_are_float32():
  x = jnp.full((1, 1, 64, 64, 3), 0.1, jnp.bfloat16)
  value = losses.l1(x, jnp.zeros_like(x))
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, float(x[0, 0, 0, 0, 0]), rtol=1e-5)
