"""Transformers over the positions of a frame that also attend to text.

Of latent diffusion (Rombach et al., 2112.10752): blocks of self-attention,
attention to text and a gated layer (GEGLU, Shazeer, 2002.05202), each after a
norm over channels.

A token that the mask excludes does not exist, and at least one of a text does:
where there is no text `inflated` gives networks the encoded empty prompt, with
which they were trained as their null condition.
"""

from typing import NamedTuple

from etils.array_types import BoolArray, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import attention
from vdm.models import layers
from vdm.models.image_unets import skeleton


class Text(NamedTuple):
  """Text of the clips.

  Attributes:
    tokens: [b n d].
    mask: [b n], true for tokens that exist, at least one a row.
  """

  tokens: FloatArray['b n d']
  mask: BoolArray['b n']


class LayerNorm(nnx.Module):
  """Normalises over channels, with statistics in float32."""

  def __init__(self, channels: int, epsilon: float = 1e-5):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
    self.epsilon = epsilon

  def __call__(self, x: FloatArray['*b c']) -> FloatArray['*b c']:
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    variance = jnp.square(y).mean(axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(variance + self.epsilon)
    scale, bias = (
      layers.along_channels(p[...], y) for p in (self.scale, self.bias)
    )
    return (y * scale + bias).astype(x.dtype)


class Attention(nnx.Module):
  """Attention of tokens to each other, or to text."""

  def __init__(
    self,
    channels: int,
    heads: int,
    *,
    text_width: int | None,
    implementation: str,
    rngs: nnx.Rngs,
  ):
    self.heads, self.implementation = heads, implementation
    source = channels if text_width is None else text_width
    self.q = layers.Linear(channels, channels, rngs=rngs, bias=False)
    self.k = layers.Linear(source, channels, rngs=rngs, bias=False)
    self.v = layers.Linear(source, channels, rngs=rngs, bias=False)
    self.out = layers.Linear(channels, channels, rngs=rngs)

  def __call__(
    self, x: FloatArray['b m c'], text: Text | None = None
  ) -> FloatArray['b m c']:
    source = x if text is None else text.tokens.astype(x.dtype)
    q, k, v = (
      y.reshape(*y.shape[:2], self.heads, -1)
      for y in (self.q(x), self.k(source), self.v(source))
    )
    mask = None if text is None else text.mask
    y = attention.attend(q, k, v, self.implementation, mask)
    return self.out(y.reshape(x.shape))


class Block(nnx.Module):
  """Self-attention, attention to text, a gated layer."""

  def __init__(
    self,
    channels: int,
    heads: int,
    text_width: int,
    *,
    implementation: str,
    rngs: nnx.Rngs,
  ):
    options = dict(implementation=implementation, rngs=rngs)
    self.norm_self = LayerNorm(channels)
    self.attention = Attention(channels, heads, text_width=None, **options)
    self.norm_text = LayerNorm(channels)
    self.text = Attention(channels, heads, text_width=text_width, **options)
    self.norm_gated = LayerNorm(channels)
    self.gated_in = layers.Linear(channels, 8 * channels, rngs=rngs)
    self.gated_out = layers.Linear(4 * channels, channels, rngs=rngs)

  def __call__(
    self, x: FloatArray['b t n c'], text: Text
  ) -> FloatArray['b t n c']:
    b, t, n, c = x.shape
    y = self.attention(self.norm_self(x).reshape(b * t, n, c))
    x = x + y.reshape(x.shape)
    # Every frame attends to the text of its clip.
    y = self.text(self.norm_text(x).reshape(b, t * n, c), text)
    x = x + y.reshape(x.shape)
    y, gate = jnp.split(self.gated_in(self.norm_gated(x)), 2, axis=-1)
    return x + self.gated_out(y * jax.nn.gelu(gate, approximate=False))


class Transformer(nnx.Module):
  """Blocks between two projections, added to the frames."""

  def __init__(
    self,
    channels: int,
    *,
    depth: int,
    heads: int,
    text_width: int,
    groups: int,
    implementation: str,
    rngs: nnx.Rngs,
  ):
    self.depth = depth
    self.norm = skeleton.norm(channels, groups, 1e-6)
    self.project_in = layers.Linear(channels, channels, rngs=rngs)
    for i in range(depth):
      block = Block(
        channels, heads, text_width, implementation=implementation, rngs=rngs
      )
      setattr(self, f'block_{i}', block)
    self.project_out = layers.Linear(
      channels, channels, rngs=rngs, init_scale=0.0
    )

  def __call__(
    self, x: FloatArray['b t h w c'], text: Text
  ) -> FloatArray['b t h w c']:
    b, t, h, w, c = x.shape
    y = self.project_in(self.norm(x)).reshape(b, t, h * w, c)
    for i in range(self.depth):
      y = getattr(self, f'block_{i}')(y, text)
    return x + self.project_out(y).reshape(x.shape)
