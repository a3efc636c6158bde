"""A patch discriminator of single frames.

Strided convolutions give one logit for every patch of 8 by 8 pixels, with a
receptive field of about 31 by 31 (Isola et al., 2017, with a norm over channels
in place of the one over the batch: the logits of a frame depend on no other).
It is trained together with the autoencoder, by the same optimizer: each treats
the other as a constant, so the gradient of the sum of their losses is the
gradient of each one's own.
"""

from etils.array_types import FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm import models
from vdm.models import layers

NAME = 'discriminator'  # Key of its parameters in those of the autoencoder.
DEPTH = 3  # Halvings.


class Discriminator(nnx.Module):
  """Frames to logits of patches, h / 8 by w / 8; positive means real."""

  def __init__(self, width: int, *, rngs: nnx.Rngs):
    cin = 3
    for i in range(DEPTH):
      conv = layers.Conv(cin, width * 2**i, rngs=rngs, stride=2)
      setattr(self, f'conv_{i}', conv)
      if i:
        scale = nnx.Param(jnp.ones((width * 2**i,), jnp.float32))
        setattr(self, f'scale_{i}', scale)
      cin = width * 2**i
    self.head = layers.Conv(cin, 1, rngs=rngs)

  def __call__(self, x: FloatArray['*b h w 3']) -> FloatArray['*b y x']:
    for i in range(DEPTH):
      x = getattr(self, f'conv_{i}')(x)
      if i:
        scale = getattr(self, f'scale_{i}')[...]
        x = layers.rms_norm(x, layers.along_channels(scale, x))
      x = jax.nn.leaky_relu(x, 0.2)
    return self.head(x)[..., 0]


def make(width: int) -> models.Network:
  """Returns the functions of a discriminator."""
  return models.functional(Discriminator, width)
