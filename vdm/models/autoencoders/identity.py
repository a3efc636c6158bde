"""No autoencoder: latents are the pixels, for diffusion in pixel space."""

import jax.numpy as jnp

# exp of this is a posterior deviation far below a grey level: no noise.
LOGVAR = -30.0


def init(key, clips):
  """There is nothing to fit or to train."""
  del key, clips
  return {}


def encode(params, x):
  """Returns (x, constant log-variance)."""
  del params
  return x, jnp.full_like(x, LOGVAR)


def decode(params, z):
  """Returns z."""
  del params
  return z
