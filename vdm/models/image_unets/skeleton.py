"""The U-Net that the families of published image models share.

Levels of residual blocks, each with attention or without, and with resampling
between levels. The output of the stem, of every block and of every downsampling
is a skip; on the way up every block takes one, and each level has one block
more than on the way down (Ho et al., 2006.11239; Dhariwal & Nichol, 2105.05233;
Rombach et al., 2112.10752). Networks differ in what attention is and in their
`layout`.

All of it is per frame: frames are folded into the batch.
"""

from collections.abc import Callable
import functools
import math
from typing import Any
import zlib

from etils.array_types import Array, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import layers
from vdm.models.image_unets import layout


def time_features(
  t: FloatArray['b t'],
  width: int,
  cosine_first: bool = True,
  frequency_shift: float = 0.0,
) -> FloatArray['b t width']:
  """Returns sinusoids of a timestep, with periods up to 10000 2 pi.

  Args:
    t: timesteps, not necessarily whole numbers.
    width: even.
    cosine_first: cosines, then sines, or the reverse.
    frequency_shift: taken from the number of frequencies in the exponent.
  """
  half = width // 2
  exponent = -math.log(10000.0) * jnp.arange(half, dtype=jnp.float32)
  frequency = jnp.exp(exponent / (half - frequency_shift))
  angle = t.astype(jnp.float32)[..., None] * frequency[None, None]
  parts = (jnp.cos(angle), jnp.sin(angle))
  return jnp.concatenate(parts if cosine_first else parts[::-1], axis=-1)


def norm(channels: int, groups: int, epsilon: float) -> layers.GroupNorm:
  """Returns a group norm of this many groups."""
  return layers.GroupNorm(
    channels, group_size=channels // groups, epsilon=epsilon
  )


def halve(x: FloatArray['b t h w c']) -> FloatArray['b t y x c']:
  """Averages 2 x 2 positions."""
  return layers.shrink(x, 2)


class Residual(nnx.Module):
  """Two convolutions after norms, and a skip; between both, the embedding."""

  def __init__(
    self,
    place: layout.Place,
    sizes: layout.Sizes,
    dropout: float,
    *,
    rngs: nnx.Rngs,
  ):
    cin, cout = place.cin, place.cout
    self.norm_in = norm(cin, sizes.groups, sizes.epsilon)
    self.conv_in = layers.Conv(cin, cout, rngs=rngs)
    width = 2 * cout if sizes.scale_shift else cout
    self.film = layers.Linear(sizes.embed_width, width, rngs=rngs)
    self.norm_out = norm(cout, sizes.groups, sizes.epsilon)
    self.conv_out = layers.Conv(cout, cout, rngs=rngs, init_scale=0.0)
    self.skip = layers.Linear(cin, cout, rngs=rngs) if cin != cout else None
    self.scale_shift, self.dropout = sizes.scale_shift, dropout
    self.resample = None
    if not place.is_block:
      self.resample = {'down': halve, 'up': layers.upsample}[place.part]

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    embedding: FloatArray['b t e'],
    key: jax.Array | None,
  ) -> FloatArray['b t y x d']:
    y = nnx.silu(self.norm_in(x))
    if self.resample is not None:
      x, y = self.resample(x), self.resample(y)
    y = self.conv_in(y)
    vector = self.film(embedding)[:, :, None, None]
    if self.scale_shift:
      scale, shift = jnp.split(vector, 2, axis=-1)
      y = self.norm_out(y) * (1 + scale) + shift
    else:
      y = self.norm_out(y + vector)
    y = self.conv_out(layers.dropout(nnx.silu(y), self.dropout, key))
    return y + (x if self.skip is None else self.skip(x))


class Resample(nnx.Module):
  """A convolution with stride 2, or after each position is repeated."""

  def __init__(self, place: layout.Place, *, rngs: nnx.Rngs):
    self.up = place.part == 'up'
    options = {} if self.up else dict(stride=2, padding=((1, 1), (1, 1)))
    self.conv = layers.Conv(place.cin, place.cout, rngs=rngs, **options)

  def __call__(
    self,
    x: FloatArray['b t h w c'],
    embedding: FloatArray['b t e'],
    key: jax.Array | None,
  ) -> FloatArray['b t y x c']:
    del embedding, key
    return self.conv(layers.upsample(x) if self.up else x)


def unchanged(name: str, x: FloatArray['b t h w c']) -> FloatArray['b t h w c']:
  """Adds nothing after a block."""
  del name
  return x


class ImageUNet(nnx.Module):
  """An image model over the frames of clips.

  Children are named after their `places`, attention with '_attention' added.
  """

  def __init__(
    self,
    described: Any,
    *,
    implementation: str = 'plain',
    dropout: float = 0.0,
    remat: str = 'none',
    rngs: nnx.Rngs,
  ):
    """Makes the network.

    Args:
      described: a description of either family: its `sizes`, and `attention`,
        (place, implementation, rngs) -> a module (x, context) -> x.
      implementation: see `attention.attend`.
      dropout: of residual blocks.
      remat: see `config.model.remat`.
      rngs: of the initial values.
    """
    sizes = described.sizes
    self.sizes, self.remat = sizes, remat
    width, embed_width = sizes.widths[0], sizes.embed_width
    self.embed_in = layers.Linear(sizes.features, embed_width, rngs=rngs)
    self.embed_out = layers.Linear(embed_width, embed_width, rngs=rngs)
    shape = (sizes.classes, embed_width)
    self.embed_label = (
      nnx.Param(layers.scaled_normal(rngs.params(), shape, 1, 0.02))
      if sizes.classes
      else None
    )
    self.stem = layers.Conv(sizes.channels, width, rngs=rngs)
    for place in layout.places(sizes):
      if place.is_block or sizes.residual_resampling:
        block = Residual(place, sizes, dropout, rngs=rngs)
      else:
        block = Resample(place, rngs=rngs)
      setattr(self, place.name, block)
      if place.attention:
        made = described.attention(place, implementation, rngs)
        setattr(self, f'{place.name}_attention', made)
    self.head_norm = norm(width, sizes.groups, sizes.epsilon)
    self.head_conv = layers.Conv(
      width, sizes.channels, rngs=rngs, init_scale=0.0
    )

  def embed(
    self, t: FloatArray['b t'], cond: dict[str, Array['b ...']]
  ) -> FloatArray['b t e']:
    """Embeds each frame's timestep and the clip's label.

    Published embeddings have no null label: it is the mean of all labels.
    """
    sizes = self.sizes
    features = time_features(
      t, sizes.features, sizes.cosine_first, sizes.frequency_shift
    )
    embedding = self.embed_out(nnx.silu(self.embed_in(features)))
    if self.embed_label is not None:
      table = self.embed_label[...].astype(jnp.float32)
      null = table.mean(axis=0)[None]
      label = cond['label']
      rows = jnp.where(label[:, None] < 0, null, table[jnp.maximum(label, 0)])
      embedding = embedding + rows[:, None]
    return nnx.silu(embedding)

  def __call__(
    self,
    z: FloatArray['b t h w c'],
    t: FloatArray['b t'],
    cond: dict[str, Array['b ...']],
    context: Any = None,
    key: jax.Array | None = None,
    after: Callable[..., FloatArray['b t h w c']] = unchanged,
  ) -> FloatArray['b t h w c']:
    """Returns what the image model returns for each frame, in the dtype of z.

    Args:
      z: noisy frames.
      t: timestep of each frame.
      cond: 'label' int [b], negative for none, if it takes labels.
      context: what attention is given besides x.
      key: typed keys [b] of the dropout; None for no dropout.
      after: (name of a block, x) -> x, applied after each.
    """
    embedding = self.embed(t, cond).astype(z.dtype)

    def run(place, x):
      own = layers.keys_of_block(key, zlib.crc32(place.name.encode()))
      x = getattr(self, place.name)(x, embedding, own)
      if place.attention:
        x = getattr(self, f'{place.name}_attention')(x, context)
      return after(place.name, x) if place.is_block else x

    x = self.stem(z)
    skips = [x]
    for place in layout.places(self.sizes):
      if place.part == 'up' and place.is_block:
        x = jnp.concatenate([x, skips.pop()], axis=-1)
      x = layers.rematerialised(self.remat, functools.partial(run, place))(x)
      if place.part == 'down':
        skips.append(x)
    return self.head_conv(nnx.silu(self.head_norm(x)))
