"""Blocks of the U-Net: spatial layers, then a temporal branch.

Every block is conditioned on an embedding [b t e] of each frame's level and the
clip's conditioning, by scale and shift (FiLM) after a norm. What ends a
residual branch starts at zero. The layers with attention are also those of
`token_transformer`, with its own norm.
"""

from collections.abc import Callable, Mapping
from typing import Any

from etils.array_types import BoolArray, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import attention
from vdm.models import layers


class Film(nnx.Module):
  """Scales and shifts a normalised activation by the embedding."""

  def __init__(self, embed_width: int, channels: int, *, rngs: nnx.Rngs):
    self.linear = layers.Linear(
      embed_width, 2 * channels, rngs=rngs, init_scale=0.0
    )

  def __call__(
    self, x: FloatArray['b t h w c'], embedding: FloatArray['b t e']
  ) -> FloatArray['b t h w c']:
    scale, shift = jnp.split(self.linear(embedding), 2, axis=-1)
    return x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]


class ConvUp(layers.Conv):
  """A convolution of the grid with each position repeated twice a side."""

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t y x d']:
    return super().__call__(layers.upsample(x))


class LinearDown(layers.Linear):
  """A matrix product from each 2 x 2 positions to one."""

  def __init__(self, cin: int, cout: int, *, rngs: nnx.Rngs):
    super().__init__(4 * cin, cout, rngs=rngs)

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t y x d']:
    return super().__call__(layers.space_to_depth(x, 2))


class LinearUp(layers.Linear):
  """A matrix product from each position to 2 x 2."""

  def __init__(self, cin: int, cout: int, *, rngs: nnx.Rngs):
    super().__init__(cin, 4 * cout, rngs=rngs)

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t y x d']:
    return layers.depth_to_space(super().__call__(x), 2)


class ResidualBlock(nnx.Module):
  """Two convolutions over space, or over space and time."""

  def __init__(
    self,
    cin: int,
    cout: int,
    *,
    embed_width: int,
    dropout: float,
    conv: Callable[..., nnx.Module],
    rngs: nnx.Rngs,
  ):
    self.norm_in = layers.GroupNorm(cin)
    self.conv_in = conv(cin, cout, rngs=rngs)
    self.norm_out = layers.GroupNorm(cout)
    self.film = Film(embed_width, cout, rngs=rngs)
    self.conv_out = conv(cout, cout, rngs=rngs, init_scale=0.0)
    self.skip = layers.Linear(cin, cout, rngs=rngs) if cin != cout else None
    self.dropout = dropout

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    embedding: FloatArray['b t e'],
    key: jax.Array | None,
  ) -> FloatArray['b t h w d']:
    y = self.conv_in(nnx.silu(self.norm_in(x)))
    y = nnx.silu(self.film(self.norm_out(y), embedding))
    y = self.conv_out(layers.dropout(y, self.dropout, key))
    return y + (x if self.skip is None else self.skip(x))


class SpatialAttention(nnx.Module):
  """Attention over the positions of each frame."""

  def __init__(
    self,
    channels: int,
    *,
    embed_width: int,
    heads: Mapping[str, Any],
    norm: Callable[..., nnx.Module] = layers.GroupNorm,
    rngs: nnx.Rngs,
  ):
    self.norm = norm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.attention = attention.Attention(channels, **heads, rngs=rngs)

  def __call__(
    self, x: FloatArray['b t h w c'], embedding: FloatArray['b t e']
  ) -> FloatArray['b t h w c']:
    b, t, h, w, c = x.shape
    y = self.film(self.norm(x), embedding).reshape(b * t, h * w, c)
    y = self.attention(y, attention.grid_positions(h, w))
    return x + y.reshape(x.shape)


class TextAttention(nnx.Module):
  """Attention of every position of every frame to the tokens of a text."""

  def __init__(
    self,
    channels: int,
    *,
    embed_width: int,
    text_width: int,
    head_size: int,
    norm: Callable[..., nnx.Module] = layers.GroupNorm,
    rngs: nnx.Rngs,
  ):
    self.norm = norm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.attention = attention.CrossAttention(
      channels, text_width, head_size, rngs=rngs
    )

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    embedding: FloatArray['b t e'],
    text: tuple[FloatArray['b n d'], BoolArray['b n']],
  ) -> FloatArray['b t h w c']:
    b, *_, c = x.shape
    y = self.film(self.norm(x), embedding).reshape(b, -1, c)
    return x + self.attention(y, *text).reshape(x.shape)


class TemporalAttention(nnx.Module):
  """Attention over the frames at each position, or jointly over (t h w)."""

  def __init__(
    self,
    channels: int,
    *,
    embed_width: int,
    heads: Mapping[str, Any],
    joint: bool,
    norm: Callable[..., nnx.Module] = layers.GroupNorm,
    rngs: nnx.Rngs,
  ):
    self.norm = norm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.attention = attention.Attention(channels, **heads, rngs=rngs)
    self.joint = joint

  def __call__(
    self, x: FloatArray['b t h w c'], embedding: FloatArray['b t e']
  ) -> FloatArray['b t h w c']:
    b, t, h, w, c = x.shape
    y = self.film(self.norm(x), embedding)
    if self.joint:
      y = self.attention(
        y.reshape(b, t * h * w, c), attention.grid_positions(t, h, w)
      )
      return x + y.reshape(x.shape)
    y = y.reshape(b, t, h * w, c).swapaxes(1, 2).reshape(b * h * w, t, c)
    y = self.attention(y, attention.grid_positions(t))
    return x + y.reshape(b, h * w, t, c).swapaxes(1, 2).reshape(x.shape)


class TemporalConvolution(nnx.Module):
  """A convolution over t at each position."""

  def __init__(self, channels: int, *, embed_width: int, rngs: nnx.Rngs):
    self.norm = layers.GroupNorm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.conv = layers.TemporalConv(channels, channels, rngs=rngs)
    self.out = layers.Linear(channels, channels, rngs=rngs, init_scale=0.0)

  def __call__(
    self, x: FloatArray['b t h w c'], embedding: FloatArray['b t e']
  ) -> FloatArray['b t h w c']:
    y = nnx.silu(self.film(self.norm(x), embedding))
    return x + self.out(nnx.silu(self.conv(y)))


class Block(nnx.Module):
  """One block of a level: spatial layers, then `temporal` temporal branches.

  `heads` are the arguments of `attention.Attention` besides the channels. With
  a `text_width`, blocks with attention over (h w) or (t h w) attend to a text,
  too, before what is temporal: so do single frames.
  """

  def __init__(
    self,
    cin: int,
    cout: int,
    *,
    embed_width: int,
    heads: Mapping[str, Any],
    dropout: float,
    conv: Callable[..., nnx.Module],
    attention: bool,
    temporal: int,
    temporal_attention: bool,
    joint_attention: bool,
    text_width: int = 0,
    rngs: nnx.Rngs,
  ):
    width = dict(embed_width=embed_width, rngs=rngs)
    attends = dict(heads=heads, **width)
    self.spatial = ResidualBlock(cin, cout, dropout=dropout, conv=conv, **width)
    self.attention = SpatialAttention(cout, **attends) if attention else None
    reads = text_width and (attention or joint_attention)
    self.text = (
      TextAttention(
        cout, text_width=text_width, head_size=heads['head_size'], **width
      )
      if reads
      else None
    )
    branches = {}
    for i in range(temporal):
      branches[f'temporal_conv_{i}'] = TemporalConvolution(cout, **width)
      if temporal_attention:
        branches[f'temporal_attention_{i}'] = TemporalAttention(
          cout, joint=False, **attends
        )
    if joint_attention:
      branches['temporal_joint'] = TemporalAttention(
        cout, joint=True, **attends
      )
    # Named attributes, not a list: older versions of flax can merge them.
    self.branches = tuple(branches)
    for name, branch in branches.items():
      setattr(self, name, branch)

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    embedding: FloatArray['b t e'],
    key: jax.Array | None,
    text: tuple[FloatArray['b n d'], BoolArray['b n']] | None = None,
  ) -> FloatArray['b t h w d']:
    x = self.spatial(x, embedding, key)
    if self.attention is not None:
      x = self.attention(x, embedding)
    if self.text is not None:
      x = self.text(x, embedding, text)
    if x.shape[1] > 1:
      for name in self.branches:
        x = getattr(self, name)(x, embedding)
    return x
