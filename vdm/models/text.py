"""The text encoder: a caption's tokens, ready to be attended to.

    words or encoded tokens -> vectors, behind a learned one that starts each
    caption -> transformer layers, trained with the denoiser -> tokens; their
    scaled sum is the pooled vector

Words are looked up in a table. Tokens of a pretrained encoder, which stays
outside of the network, are projected; the layers then adapt them. The first
token is always there: it is what stands for a caption that is not told, and
what a query attends to that no word concerns.
"""

from collections.abc import Mapping

from etils.array_types import Array, BoolArray, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.common import vocabulary
from vdm.models import attention
from vdm.models import layers

GROWTH = 4  # Of the width, inside of a feed-forward layer.
POOLED = 2.0  # Root mean square of a pooled vector. That of a label is 1.


class Layer(nnx.Module):
  """A layer of a transformer over the tokens that there are."""

  def __init__(self, width: int, head_size: int, *, rngs: nnx.Rngs):
    self.norm_in = layers.RMSNorm(width)
    self.attention = attention.Attention(width, head_size, rngs=rngs)
    self.norm_out = layers.RMSNorm(width)
    self.grow = layers.Linear(width, GROWTH * width, rngs=rngs)
    self.shrink = layers.Linear(
      GROWTH * width, width, rngs=rngs, init_scale=0.0
    )

  def __call__(
    self, x: FloatArray['b n c'], mask: BoolArray['b n']
  ) -> FloatArray['b n c']:
    positions = attention.grid_positions(x.shape[1])
    x = x + self.attention(self.norm_in(x), positions, mask)
    return x + self.shrink(nnx.gelu(self.grow(self.norm_out(x))))


class TextEncoder(nnx.Module):
  """Encodes captions; vdm/config/schema.py explains its arguments.

  `embed_width` is that of the embedding of the noise level.
  """

  def __init__(
    self,
    embed_width: int,
    *,
    encoder: str,
    width: int,
    depth: int,
    head_size: int,
    vocabulary_size: int,
    features: int,
    rngs: nnx.Rngs,
  ):
    self.learned = encoder == 'learned'
    self.embed_start = nnx.Param(
      layers.scaled_normal(rngs.params(), (width,), 1)
    )
    if self.learned:
      rows = vocabulary.FIRST + vocabulary_size
      self.embed_words = nnx.Param(
        layers.scaled_normal(rngs.params(), (rows, width), 1)
      )
    else:
      self.norm_features = layers.RMSNorm(features)
      self.embed_features = layers.Linear(features, width, rngs=rngs)
    self.layers = tuple(f'layer_{i}' for i in range(depth))
    for name in self.layers:
      setattr(self, name, Layer(width, head_size, rngs=rngs))
    self.norm = layers.RMSNorm(width)
    self.embed_caption = layers.Linear(width, embed_width, rngs=rngs)

  def __call__(
    self, cond: Mapping[str, Array['b ...']], dtype: jnp.dtype
  ) -> tuple[FloatArray['b n+1 c'], BoolArray['b n+1']]:
    """Returns the tokens and which of them there are; the first always is.

    Args:
      cond: 'words' int [b n], 0 for none; of a pretrained encoder 'text'
        [b n d] and 'text_mask' bool [b n].
      dtype: to compute in.
    """
    if self.learned:
      mask = cond['words'] != vocabulary.NONE
      x = self.embed_words[...].astype(dtype)[cond['words']]
    else:
      mask = cond['text_mask']
      x = self.norm_features(cond['text'].astype(dtype))
      x = self.embed_features(x)
    b, _, c = x.shape
    start = jnp.broadcast_to(self.embed_start[...].astype(dtype), (b, 1, c))
    x = jnp.concatenate([start, x], axis=1)
    mask = jnp.concatenate([jnp.ones((b, 1), bool), mask], axis=1)
    for name in self.layers:
      x = getattr(self, name)(x, mask)
    return self.norm(x), mask

  def embed(
    self, tokens: FloatArray['b n c'], mask: BoolArray['b n']
  ) -> FloatArray['b e']:
    """Returns what is added to the embedding of the noise level, as a label is.

    Args:
      tokens: of captions, as `self` returns them.
      mask: which of them there are.
    """
    return self.embed_caption(pool(tokens, mask))


def pool(
  tokens: FloatArray['b n c'], mask: BoolArray['b n']
) -> FloatArray['b c']:
  """Returns the sum of the tokens that there are, scaled to `POOLED`.

  The first token alone would learn of words only through attention that starts
  at zero, and is nearly the same for all captions until then. In a mean one
  word of ten is small beside the embedding of the noise level, and a network
  takes thousands of steps to find out what it says of motion: docs/words.md.

  Args:
    tokens: of captions.
    mask: which of them there are, at least one.

  Returns:
    Vectors in float32, whose root mean square is `POOLED`.
  """
  x = jnp.einsum(
    'bn,bnc->bc', mask.astype(jnp.float32), tokens.astype(jnp.float32)
  )
  mean_square = jnp.square(x).mean(axis=1, keepdims=True)
  return POOLED * x * jax.lax.rsqrt(mean_square + 1e-6)
