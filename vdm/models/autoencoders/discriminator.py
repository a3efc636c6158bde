"""A patch discriminator: how real each part of a frame looks.

Strided convolutions over single frames end in one logit for every patch of 8
by 8 pixels, which sees some 31 of them each way (Isola et al., 2017, with a
norm over channels in place of one over the batch: a frame's logits depend on
no other). It is trained beside the autoencoder that it judges, by the same
optimizer: each sees the other as a constant, so the gradient of the sum of
their losses is the gradient of each one's own.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from vdm import models
from vdm.models import layers

NAME = 'discriminator'  # Of its parameters, beside those of the autoencoder.
DEPTH = 3  # Halvings.


class Discriminator(nnx.Module):
  """[b, t, h, w, 3] -> logits [b, t, h / 8, w / 8]; above 0: real."""

  def __init__(self, width, *, rngs):
    cin = 3
    for i in range(DEPTH):
      conv = layers.Conv(cin, width * 2**i, rngs=rngs, stride=2)
      setattr(self, f'conv_{i}', conv)
      if i:
        scale = nnx.Param(jnp.ones((width * 2**i,), jnp.float32))
        setattr(self, f'scale_{i}', scale)
      cin = width * 2**i
    self.head = layers.Conv(cin, 1, rngs=rngs)

  def __call__(self, x):
    for i in range(DEPTH):
      x = getattr(self, f'conv_{i}')(x)
      if i:
        scale = getattr(self, f'scale_{i}')[...]
        x = layers.rms_norm(x, layers.along_channels(scale, x))
      x = jax.nn.leaky_relu(x, 0.2)
    return self.head(x)[..., 0]


def make(width):
  """Returns the network's `init` and `apply`, see `models.functional`."""
  return models.functional(
    lambda key: Discriminator(width, rngs=nnx.Rngs(params=key))
  )
