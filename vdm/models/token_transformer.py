"""A transformer that fills in the masked tokens of a clip.

    tokens, masked -> a vector for every position -> blocks -> logits

A position's vector is the sum of an embedding for each channel's digit, or one
learned vector where it is masked (MaskGIT, Chang et al., 2202.04200; MAGVIT, Yu
et al., 2212.05199). A block attends over (h w) and then over t, or over all of
(t h w), then to a text if there is one, and ends with a feed-forward layer.
Layers are those of the U-Net (`unet_blocks`), normalised at each position.

What is told (label, scalars, pooled text) modulates every layer by scale and
shift. So does the log-odds of each frame's share of tokens that are known,
which takes the place of a noise level: it costs nothing, and the network need
not count.

Position-wise layers and those over (h w) are shared by all frames, and what is
`temporal` is skipped when t = 1: with one frame this is an image model.
"""

from collections.abc import Mapping
from typing import Any

from etils.array_types import Array, BoolArray, FloatArray, IntArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import embedding
from vdm.models import layers
from vdm.models import text as text_encoders
from vdm.models import tokens as codes
from vdm.models import unet_blocks

# The keys of `config.model` that the network takes as they are.
OPTIONS = (
  'head_size',
  'attention',
  'embed_width',
  'num_classes',
  'scalars',
  'dropout',
  'remat',
)


class FeedForward(nnx.Module):
  """Two matrix products at every position; the second starts at zero."""

  def __init__(
    self, width: int, *, embed_width: int, dropout: float, rngs: nnx.Rngs
  ):
    self.norm = layers.RMSNorm(width)
    self.film = unet_blocks.Film(embed_width, width, rngs=rngs)
    inside = text_encoders.GROWTH * width
    self.grow = layers.Linear(width, inside, rngs=rngs)
    self.shrink = layers.Linear(inside, width, rngs=rngs, init_scale=0.0)
    self.dropout = dropout

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    told: FloatArray['b t e'],
    key: jax.Array | None,
  ) -> FloatArray['b t h w c']:
    y = nnx.gelu(self.grow(self.film(self.norm(x), told)))
    return x + self.shrink(layers.dropout(y, self.dropout, key))


class Block(nnx.Module):
  """Attention over space and time, to a text, and a feed-forward layer."""

  def __init__(
    self,
    width: int,
    *,
    joint: bool,
    heads: Mapping[str, Any],
    text_width: int,
    dropout: float,
    embed_width: int,
    rngs: nnx.Rngs,
  ):
    own = dict(embed_width=embed_width, rngs=rngs)
    attends = dict(heads=heads, norm=layers.RMSNorm, **own)
    branches = {}
    if joint:
      branches['joint'] = unet_blocks.TemporalAttention(
        width, joint=True, **attends
      )
    else:
      branches['spatial'] = unet_blocks.SpatialAttention(width, **attends)
      branches['temporal'] = unet_blocks.TemporalAttention(
        width, joint=False, **attends
      )
    self.branches = tuple(branches)
    for name, branch in branches.items():
      setattr(self, name, branch)
    self.text = (
      unet_blocks.TextAttention(
        width,
        text_width=text_width,
        head_size=heads['head_size'],
        norm=layers.RMSNorm,
        **own,
      )
      if text_width
      else None
    )
    self.feed_forward = FeedForward(width, dropout=dropout, **own)

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    told: FloatArray['b t e'],
    key: jax.Array | None,
    text: tuple[FloatArray['b n d'], BoolArray['b n']] | None,
  ) -> FloatArray['b t h w c']:
    for name in self.branches:
      if name != 'temporal' or x.shape[1] > 1:
        x = getattr(self, name)(x, told)
    if self.text is not None:
      x = self.text(x, told, text)
    return self.feed_forward(x, told, key)


class TokenTransformer(embedding.Embedding):
  """The network; vdm/config/schema.py explains its arguments."""

  def __init__(
    self,
    groups: codes.Groups,
    *,
    width: int,
    depth: int,
    joint: bool,
    head_size: int,
    attention: str,
    embed_width: int,
    num_classes: int,
    scalars: tuple[str, ...],
    dropout: float,
    remat: str,
    text: Mapping[str, Any] | None = None,
    rngs: nnx.Rngs,
  ):
    """Makes the network, for the tokens of `groups` of channels."""
    super().__init__(
      embed_width, num_classes, scalars, 'embed_temporal_', rngs=rngs
    )
    self.groups, self.remat = groups, remat
    self.text = (
      text_encoders.TextEncoder(embed_width, **text, rngs=rngs)
      if text
      else None
    )
    # Rows of one channel after those of another.
    levels = sum(groups, ())
    self.embed_digits = nnx.Param(
      layers.scaled_normal(rngs.params(), (sum(levels), width), len(levels))
    )
    self.embed_mask = nnx.Param(
      layers.scaled_normal(rngs.params(), (width,), 1)
    )
    self.blocks = tuple(f'block_{i:02d}' for i in range(depth))
    for name in self.blocks:
      block = Block(
        width,
        joint=joint,
        heads=dict(head_size=head_size, implementation=attention),
        text_width=text['width'] if text else 0,
        dropout=dropout,
        embed_width=embed_width,
        rngs=rngs,
      )
      setattr(self, name, block)
    self.head_norm = layers.RMSNorm(width)
    self.head = layers.Linear(
      width, sum(codes.sizes(groups)), rngs=rngs, init_scale=0.0
    )

  def __call__(
    self,
    tokens: IntArray['b t h w g'],
    masked: BoolArray['b t h w'],
    cond: dict[str, Array['b ...']],
    dtype: jnp.dtype,
    key: jax.Array | None = None,
  ) -> FloatArray['b t h w v']:
    """Returns the logits of every group's values, one group after another.

    Args:
      tokens: what they are where they are masked has no effect.
      masked: which positions are.
      cond: see `unet.UNet`.
      dtype: to compute in.
      key: typed keys [b] of the dropout; None for no dropout.
    """
    known = 1.0 - masked.astype(jnp.float32).mean(axis=(2, 3))
    text, told = None, self.embed(jnp.log(known) - jnp.log1p(-known), cond)
    if self.text is not None:
      text = self.text(cond, dtype)
      told = told + self.text.embed(*text)[:, None]
    told = nnx.silu(told).astype(dtype)
    x = self._embed_tokens(tokens, masked, dtype)
    for i, name in enumerate(self.blocks):
      own = layers.keys_of_block(key, i)
      block = layers.rematerialised(self.remat, getattr(self, name))
      x = block(x, told, own, text)
    return self.head(self.head_norm(x))

  def _embed_tokens(self, tokens, masked, dtype):
    digits = codes.unpack(tokens, self.groups)
    levels = sum(self.groups, ())
    starts = [sum(levels[:i]) for i in range(len(levels))]
    rows = digits + layers.along_channels(starts, digits)
    x = self.embed_digits[...].astype(dtype)[rows].sum(-2)
    mask = layers.along_channels(self.embed_mask[...], x)
    return jnp.where(masked[..., None], mask, x)
