"""The linear denoiser against the formula with the true covariance."""

import numpy as np
import pytest

from vdm.metrics import linear_denoiser


def gaussian(n, seed=0):
  """Vectors of 40 dimensions, of which 5 vary much."""
  random = np.random.default_rng(seed)
  basis = np.linalg.qr(np.random.default_rng(9).normal(size=(40, 5)))[0].T
  spread = np.array([5.0, 4.0, 3.0, 2.0, 1.5])
  rest = 0.1 * random.normal(size=(n, 40))
  x = 1.0 + (random.normal(size=(n, 5)) * spread) @ basis + rest
  return x, basis.T * spread**2 @ basis + 0.01 * np.eye(40)


@pytest.mark.parametrize('log_snr', [-4.0, 0.0, 5.0])
def test_a_gaussian_is_denoised_as_well_as_it_can_be(log_snr):
  x, _ = gaussian(1000)
  held_out, covariance = gaussian(1000, seed=1)
  alpha, sigma = (1 + np.exp(-log_snr)) ** -0.5, (1 + np.exp(log_snr)) ** -0.5
  noise = np.random.default_rng(2).normal(size=held_out.shape)
  z = alpha * held_out + sigma * noise
  found = linear_denoiser.denoise(linear_denoiser.fit(x), z, log_snr)
  inner = alpha**2 * covariance + sigma**2 * np.eye(40)
  best = 1.0 + alpha * (z - alpha) @ np.linalg.solve(inner, covariance)
  error = np.square(found - held_out).mean()
  expected = np.square(best - held_out).mean()
  assert expected <= error * 1.001 < 1.05 * expected
  # And far better than not looking at the data.
  assert error < 0.7 * np.square(z / alpha - held_out).mean()


def test_fewer_vectors_than_dimensions_are_enough():
  x, _ = gaussian(16)
  linear = linear_denoiser.fit(x)
  np.testing.assert_allclose(
    linear.components @ linear.components.T,
    np.eye(len(linear.variances)),
    atol=1e-9,
  )
  # Without noise nothing changes, with nothing else the mean comes out.
  np.testing.assert_allclose(
    linear_denoiser.denoise(linear, x, 60.0), x, atol=1e-6
  )
  np.testing.assert_allclose(
    linear_denoiser.denoise(linear, x, -60.0),
    np.broadcast_to(x.mean(axis=0), x.shape),
    atol=1e-6,
  )


def test_too_few_vectors_are_refused():
  with pytest.raises(ValueError, match='Four vectors'):
    linear_denoiser.fit(np.zeros((3, 8)))
