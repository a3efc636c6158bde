"""A factorised space-time U-Net over noisy latents, one noise level a frame.

Each level runs spatial residual blocks on single frames (and attention where
the grid is small), each followed by a temporal branch: a convolution over t,
then attention over t at every place. An object that moves leaves its column
of places, so the middle, at the coarsest level, also attends over (t h w).

Temporal branches are conditioned like the spatial ones, end in a projection
that starts at zero, and are left out when t = 1. With one frame this is an
image model, and a trained image model that is given frames computes for each
of them what it computed before (Ho et al., 2204.03458; Blattmann et al.,
2304.08818). Time is never down-sampled.

Parameter paths say what a parameter is for, so that stages can freeze by
pattern: `temporal` occurs in the path of every temporal parameter, `film`
in that of every projection of the conditioning.
"""

import zlib

from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import layers

# Occurs in the path of every parameter that single frames do not use.
TEMPORAL = r'temporal'


def level_features(levels, width):
  """Sinusoids of a bounded function of log-SNR: [b, t] -> [b, t, width].

  12 tanh(level / 12) is nearly the level itself where denoising is hard and
  stays finite for frames that are clean or pure noise.
  """
  bounded = 12.0 * jnp.tanh(levels.astype(jnp.float32) / 12.0)
  frequency = jnp.geomspace(0.05, 3.0, width // 2)
  angle = bounded[..., None] * frequency[None, None]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Film(nnx.Module):
  """Scale and shift of a normalised activation, from the conditioning."""

  def __init__(self, embed_width, channels, *, rngs):
    self.linear = layers.Linear(
      embed_width, 2 * channels, rngs=rngs, init_scale=0.0
    )

  def __call__(self, x, embedding):
    scale, shift = jnp.split(self.linear(embedding), 2, axis=-1)
    return x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]


class ResidualBlock(nnx.Module):
  """Two convolutions over space (or over space and time), conditioned."""

  def __init__(self, cin, cout, *, embed_width, dropout, conv, rngs):
    self.norm_in = layers.GroupNorm(cin)
    self.conv_in = conv(cin, cout, rngs=rngs)
    self.norm_out = layers.GroupNorm(cout)
    self.film = Film(embed_width, cout, rngs=rngs)
    self.conv_out = conv(cout, cout, rngs=rngs, init_scale=0.0)
    self.skip = layers.Linear(cin, cout, rngs=rngs) if cin != cout else None
    self.dropout = dropout

  def __call__(self, x, embedding, key):
    y = self.conv_in(nnx.silu(self.norm_in(x)))
    y = nnx.silu(self.film(self.norm_out(y), embedding))
    y = self.conv_out(layers.dropout(y, self.dropout, key))
    return y + (x if self.skip is None else self.skip(x))


class SpatialAttention(nnx.Module):
  """Attention over the places of each frame."""

  def __init__(self, channels, *, embed_width, head_size, rngs):
    self.norm = layers.GroupNorm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.attention = layers.Attention(channels, head_size, rngs=rngs)

  def __call__(self, x, embedding):
    b, t, h, w, c = x.shape
    y = self.film(self.norm(x), embedding).reshape(b * t, h * w, c)
    y = self.attention(y, layers.grid_positions(h, w))
    return x + y.reshape(x.shape)


class TemporalAttention(nnx.Module):
  """Attention over the frames at each place, or over all of (t h w)."""

  def __init__(self, channels, *, embed_width, head_size, joint, rngs):
    self.norm = layers.GroupNorm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.attention = layers.Attention(channels, head_size, rngs=rngs)
    self.joint = joint

  def __call__(self, x, embedding):
    b, t, h, w, c = x.shape
    y = self.film(self.norm(x), embedding)
    if self.joint:
      y = self.attention(
        y.reshape(b, t * h * w, c), layers.grid_positions(t, h, w)
      )
      return x + y.reshape(x.shape)
    y = y.reshape(b, t, h * w, c).swapaxes(1, 2).reshape(b * h * w, t, c)
    y = self.attention(y, layers.grid_positions(t))
    return x + y.reshape(b, h * w, t, c).swapaxes(1, 2).reshape(x.shape)


class TemporalConvolution(nnx.Module):
  """A convolution over t at each place, conditioned."""

  def __init__(self, channels, *, embed_width, rngs):
    self.norm = layers.GroupNorm(channels)
    self.film = Film(embed_width, channels, rngs=rngs)
    self.conv = layers.TemporalConv(channels, channels, rngs=rngs)
    self.out = layers.Linear(channels, channels, rngs=rngs, init_scale=0.0)

  def __call__(self, x, embedding):
    y = nnx.silu(self.film(self.norm(x), embedding))
    return x + self.out(nnx.silu(self.conv(y)))


class Block(nnx.Module):
  """One step of a level: space, then time."""

  def __init__(
    self,
    cin,
    cout,
    *,
    embed_width,
    head_size,
    dropout,
    conv,
    attention,
    temporal,
    temporal_attention,
    joint_attention,
    rngs,
  ):
    self.spatial = ResidualBlock(
      cin,
      cout,
      embed_width=embed_width,
      dropout=dropout,
      conv=conv,
      rngs=rngs,
    )
    width = dict(embed_width=embed_width, rngs=rngs)
    self.attention = (
      SpatialAttention(cout, head_size=head_size, **width)
      if attention
      else None
    )
    branches = []
    for i in range(temporal):
      branches.append(
        (f'temporal_conv_{i}', TemporalConvolution(cout, **width))
      )
      if temporal_attention:
        branches.append(
          (
            f'temporal_attention_{i}',
            TemporalAttention(cout, head_size=head_size, joint=False, **width),
          )
        )
    if joint_attention:
      branches.append(
        (
          'temporal_joint',
          TemporalAttention(cout, head_size=head_size, joint=True, **width),
        )
      )
    # Named attributes, not a list: they are what older flax can merge.
    self.branches = tuple(name for name, _ in branches)
    for name, branch in branches:
      setattr(self, name, branch)

  def __call__(self, x, embedding, key):
    x = self.spatial(x, embedding, key)
    if self.attention is not None:
      x = self.attention(x, embedding)
    if x.shape[1] > 1:
      for name in self.branches:
        x = getattr(self, name)(x, embedding)
    return x


class UNet(nnx.Module):
  """The denoising network; see the module's docstring."""

  def __init__(
    self,
    channels,
    *,
    widths,
    blocks,
    attention_levels,
    temporal_levels,
    temporal_attention_levels,
    temporal_depth,
    joint_attention,
    head_size,
    embed_width,
    num_classes,
    dropout,
    convolution,
    remat,
    rngs,
  ):
    self.remat = remat
    self.widths, self.blocks = tuple(widths), tuple(blocks)
    self.feature_width = embed_width
    self.embed_in = layers.Linear(embed_width, embed_width, rngs=rngs)
    self.embed_out = layers.Linear(embed_width, embed_width, rngs=rngs)
    # The last row is the null label.
    self.embed_label = (
      nnx.Param(
        layers.scaled_normal(rngs.params(), (num_classes + 1, embed_width), 1)
      )
      if num_classes
      else None
    )
    last = len(widths) - 1

    def make_block(cin, level, joint=False):
      temporal = temporal_depth if level in temporal_levels else 0
      return Block(
        cin,
        widths[level],
        embed_width=embed_width,
        head_size=head_size,
        dropout=dropout,
        conv=layers.FullConv if convolution == 'full' else layers.Conv,
        attention=level in attention_levels,
        temporal=temporal,
        temporal_attention=level in temporal_attention_levels,
        joint_attention=joint and joint_attention and bool(temporal),
        rngs=rngs,
      )

    width = widths[0]
    self.stem = layers.Conv(channels, width, rngs=rngs)
    skips = []
    for level in range(len(widths)):
      if level > 0:
        setattr(
          self,
          f'down_{level}_resample',
          layers.Conv(width, width, stride=2, rngs=rngs),
        )
      for i in range(blocks[level]):
        block = make_block(width, level)
        setattr(self, f'down_{level}_block_{i}', block)
        width = widths[level]
        skips.append(width)
    self.middle_block = make_block(width, last, joint=True)
    for level in reversed(range(len(widths))):
      for i in range(blocks[level]):
        block = make_block(width + skips.pop(), level)
        setattr(self, f'up_{level}_block_{i}', block)
        width = widths[level]
      if level > 0:
        setattr(
          self, f'up_{level}_resample', layers.Conv(width, width, rngs=rngs)
        )
    self.head_norm = layers.GroupNorm(width)
    self.head_conv = layers.Conv(width, channels, rngs=rngs, init_scale=0.0)

  def embed(self, levels, cond):
    """The vector of each frame's noise level and the clip's conditioning."""
    features = level_features(levels, self.feature_width)
    embedding = self.embed_out(nnx.silu(self.embed_in(features)))
    if self.embed_label is not None:
      table = self.embed_label[...]
      null = table.shape[0] - 1
      label = jnp.where(cond['label'] < 0, null, cond['label'])
      embedding = embedding + table[label][:, None]
    return nnx.silu(embedding)

  def __call__(self, z, levels, cond, key=None):
    """Runs the network.

    Args:
      z: [b, t, h, w, c] noisy latents, of variance near one.
      levels: [b, t] log-SNR of each frame.
      cond: dict; 'label' int [b], negative for the null label.
      key: [b] typed keys of the dropout; None for none.

    Returns:
      [b, t, h, w, c] in z's dtype: what `config.diffusion.prediction` says.
    """
    embedding = self.embed(levels, cond).astype(z.dtype)

    def run(name, x):
      block_key = key
      if key is not None:
        block_key = jax.vmap(jax.random.fold_in, (0, None))(
          key, zlib.crc32(name.encode())
        )
      call = rematerialised(self.remat)
      return call(getattr(self, name), x, embedding, block_key)

    x = self.stem(z)
    skips = []
    for level, blocks in enumerate(self.blocks):
      if level > 0:
        x = getattr(self, f'down_{level}_resample')(x)
      for i in range(blocks):
        x = run(f'down_{level}_block_{i}', x)
        skips.append(x)
    x = run('middle_block', x)
    for level, blocks in reversed(list(enumerate(self.blocks))):
      for i in range(blocks):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = run(f'up_{level}_block_{i}', x)
      if level > 0:
        x = getattr(self, f'up_{level}_resample')(layers.upsample(x))
    return self.head_conv(nnx.silu(self.head_norm(x)))


def rematerialised(policy):
  """Runs a block, with its activations recomputed backwards by `policy`."""

  def call(block, x, embedding, key):
    return block(x, embedding, key)

  if policy == 'none':
    return call
  if policy == 'dots':
    return jax.checkpoint(call, policy=jax.checkpoint_policies.dots_saveable)
  return jax.checkpoint(call)
