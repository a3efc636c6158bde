"""Spectrum and correlation of latents against scipy and closed forms."""

import numpy as np
import pytest
import scipy.fft

from vdm.metrics import latent_statistics


def test_white_latents_have_the_share_of_the_frequencies():
  """Every coefficient has the same energy: the share is a count."""
  z = np.random.default_rng(0).normal(size=(400, 8, 6, 3))
  u, v = np.mgrid[:8, :6]
  high = (u / 8) ** 2 + (v / 6) ** 2 > 0.25
  wanted = high.sum() / (8 * 6 - 1)
  found = latent_statistics.spectrum_share(z)
  np.testing.assert_allclose(found, wanted, atol=0.005)
  # 113 000 pairs: 4 standard errors.
  correlation = latent_statistics.neighbour_correlation(z)
  assert abs(correlation) < 4 / 35_000**0.5


def test_the_spectrum_is_scipys():
  z = np.random.default_rng(0).normal(size=(5, 8, 6, 2)).cumsum(axis=1)
  energy = scipy.fft.dctn(z, norm='ortho', axes=(1, 2)) ** 2
  energy[:, 0, 0] = 0
  u, v = np.mgrid[:8, :6]
  high = (u / 8) ** 2 + (v / 6) ** 2 > 0.25
  wanted = energy[:, high].sum() / energy.sum()
  np.testing.assert_allclose(latent_statistics.spectrum_share(z), wanted)


@pytest.mark.parametrize('period, low', [(6, True), (2, False), (3, False)])
def test_waves_are_on_their_side_of_half_nyquist(period, low):
  """A wave of 2 latents is at Nyquist; one of more than 4 is below half."""
  x = np.cos(2 * np.pi * np.arange(96) / period)
  z = np.broadcast_to(x[None, None, :, None], (1, 16, 96, 1))
  share = latent_statistics.spectrum_share(z)
  assert share < 0.05 if low else share > 0.95


def test_correlation_by_hand():
  """Along rows an alternating sign, along columns no change: the mean is 0."""
  z = np.broadcast_to(np.resize([1.0, -1.0], 9), (2, 9, 9))[..., None]
  found = latent_statistics.neighbour_correlation(z)
  np.testing.assert_allclose(found, 0.0, atol=0.01)
  # The mean over channels, of which a constant one says nothing.
  smooth = np.broadcast_to(np.arange(9.0)[:, None], (2, 9, 9))[..., None]
  both = np.concatenate([smooth, np.ones_like(smooth)], axis=-1)
  rows = np.arange(9.0)
  first = np.concatenate([np.tile(rows, 8), np.repeat(rows[:-1], 9)])
  second = np.concatenate([np.tile(rows, 8), np.repeat(rows[1:], 9)])
  np.testing.assert_allclose(
    latent_statistics.neighbour_correlation(both),
    np.corrcoef(first, second)[0, 1],
  )


def test_constant_latents():
  z = np.full((2, 4, 4, 3), 0.1)
  found = latent_statistics.summary(z)
  assert found['spectrum_share'] == 0.0
  assert found['neighbour_correlation'] == 1.0
  np.testing.assert_allclose(found['mean'], [0.1] * 3)
  np.testing.assert_allclose(found['std'], [0.0] * 3, atol=1e-12)
