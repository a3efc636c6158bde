"""No autoencoder: latents are the pixels, for diffusion in pixel space."""

from typing import Any

from etils.array_types import FloatArray
import jax

from vdm.models.autoencoders import latents


def init(key: jax.Array, clips: FloatArray['n t h w 3']) -> dict[str, Any]:
  """Returns no parameters."""
  del key, clips
  return {}


def encode(
  params: dict[str, Any], x: FloatArray['b t h w 3']
) -> tuple[FloatArray['b t h w 3'], FloatArray['b t h w 3']]:
  """Returns x and a constant log-variance."""
  del params
  return latents.deterministic(x)


def decode(
  params: dict[str, Any], z: FloatArray['b t h w 3']
) -> FloatArray['b t h w 3']:
  """Returns z."""
  del params
  return z
