"""Between videos and what a network sees of them.

Pixels are uint8 outside and floats in [-1, 1] inside; latents are those of a
run's frozen autoencoder, normalised.
"""

from collections.abc import Callable
from typing import Any

from etils.array_types import FloatArray, ui8
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.models import autoencoders
from vdm.models.autoencoders import latents


def to_float(video: ui8['*b 3']) -> FloatArray['*b 3']:
  """Returns uint8 frames as float32 in [-1, 1]."""
  return video.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x: FloatArray['*b 3']) -> ui8['*b 3']:
  """Returns frames in [-1, 1], clipped, as uint8."""
  x = jnp.clip(x.astype(jnp.float32), -1.0, 1.0)
  return jnp.round((x + 1.0) * 127.5).astype(jnp.uint8)


def latent_shape(
  codec: autoencoders.Autoencoder, frames: int, size: sizes.Size
) -> tuple[int, int, int, int]:
  """Returns (t, h, w, c) of the latents of a clip."""
  t, h, w = codec.factor
  return (
    frames // t if frames > 1 else 1,
    size[0] // h,
    size[1] // w,
    codec.channels,
  )


def make(
  config: ConfigDict, codec: autoencoders.Autoencoder
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns (encode, decode): (frozen, uint8 clips) -> latents, and back.

  The latents are as the network sees them: normalised by their statistics for
  diffusion, and codes as they are for a model of tokens.
  """
  dtype = jnp.dtype(config.train.compute_dtype)
  as_codes = config.model.kind == 'transformer'

  @jax.jit
  def encode(frozen, video):
    mean, _ = codec.encode(frozen['params'], to_float(video).astype(dtype))
    mean = mean.astype(jnp.float32)
    return mean if as_codes else latents.normalise(mean, frozen['stats'])

  @jax.jit
  def decode(frozen, z):
    if not as_codes:
      z = latents.denormalise(z, frozen['stats'])
    return to_uint8(codec.decode(frozen['params'], z.astype(dtype)))

  return encode, decode
