"""Problems whose denoisers are known, for the tests of the samplers."""

import jax.numpy as jnp
import numpy as np

from vdm.diffusion import process

SPREAD = 0.4  # Deviation of each half of the mixture.


def coefficients(level):
  """Returns alpha and sigma of NumPy levels."""
  return (1 + np.exp(-level)) ** -0.5, (1 + np.exp(level)) ** -0.5


def video(values):
  """Returns [b t n] as clips [b t n 1 1]."""
  return jnp.asarray(values)[..., None, None]


def denoise_mixture(z, levels, spread=SPREAD):
  """Returns E[x0 | z] of x0 ~ (N(-1, s^2) + N(1, s^2)) / 2, for each value."""
  alpha, sigma = process.alpha_sigma(process.per_frame(levels, z))
  variance = (alpha * spread) ** 2 + sigma**2
  bend = jnp.tanh(alpha * z / variance)
  return (alpha * spread**2 * z + sigma**2 * bend) / variance


def replace_noise(monkeypatch, make):
  """Makes the samplers' noise `make(index of the step, shape)`."""
  monkeypatch.setattr(process, 'fold_in', lambda key, index: index)
  monkeypatch.setattr(process, 'noise', make)
