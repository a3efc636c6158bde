"""A factorised space-time U-Net over noisy latents, one noise level per frame.

Each level runs spatial residual blocks on single frames (and attention where
the grid is small), each followed by a temporal branch: a convolution over t,
then attention over t at every position. A moving object changes position, so
the middle, at the coarsest level, also attends over (t h w), as all blocks of
`joint_levels` do.

Temporal branches are conditioned like the spatial ones, end in a projection
that starts at zero, and are skipped when t = 1. With one frame this is an image
model, and a trained image model applied to several frames computes the same for
each of them (Ho et al., 2204.03458; Blattmann et al., 2304.08818). Time is
never downsampled between levels.

With `time_patch` the latents of that many frames are the channels of one
position, as in patches of a transformer (Peebles and Xie, 2212.09748): a
fraction of the positions, of which each knows how its object moves. Frames
still have levels of their own, all of which their patch is told.

With a text encoder (`text`), blocks with attention over space attend to its
tokens, and its pooled vector is added to the embedding as a label is: attention
that starts at zero learns slowly by itself.

A network that enlarges a smaller video (`low`) has that video's latents as
further channels of its input, with a convolution of their own that starts at
zero: so it can start from a network that has none.

Parameter paths name the purpose of a parameter, so that stages can freeze by
pattern: `temporal` occurs in the path of every temporal parameter, `film` in
that of every projection of the conditioning.
"""

from collections.abc import Mapping, Sequence
from typing import Any
import zlib

from etils.array_types import Array, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import embedding
from vdm.models import layers
from vdm.models import text as text_encoders
from vdm.models import unet_blocks

# The keys of `config.model` that the network takes as they are.
OPTIONS = (
  'widths',
  'blocks',
  'attention_levels',
  'temporal_levels',
  'temporal_attention_levels',
  'temporal_depth',
  'joint_attention',
  'joint_levels',
  'resample',
  'head_size',
  'attention',
  'embed_width',
  'num_classes',
  'scalars',
  'dropout',
  'convolution',
  'remat',
  'time_patch',
)
# Pattern of the paths of parameters that single frames do not use.
TEMPORAL = r'temporal'


class UNet(embedding.Embedding):
  """The denoiser; vdm/config/schema.py explains its arguments."""

  def __init__(
    self,
    channels: int,
    *,
    widths: Sequence[int],
    blocks: Sequence[int],
    attention_levels: Sequence[int],
    temporal_levels: Sequence[int],
    temporal_attention_levels: Sequence[int],
    temporal_depth: int,
    joint_attention: bool,
    joint_levels: int,
    resample: str,
    head_size: int,
    attention: str,
    embed_width: int,
    num_classes: int,
    scalars: Sequence[str],
    dropout: float,
    convolution: str,
    remat: str,
    text: Mapping[str, Any] | None = None,
    time_patch: int = 1,
    low: int = 0,
    rngs: nnx.Rngs,
  ):
    """Makes the network.

    `text` has the arguments of a `text.TextEncoder`, `low` is the number of
    channels of what is told of a smaller video; 0: none is.
    """
    super().__init__(
      embed_width,
      num_classes,
      scalars,
      'embed_temporal_',
      time_patch=time_patch,
      low=bool(low),
      rngs=rngs,
    )
    self.remat = remat
    self.blocks = tuple(blocks)
    self.text = (
      text_encoders.TextEncoder(embed_width, **text, rngs=rngs)
      if text
      else None
    )

    def make_block(cin, level, joint=False):
      temporal = temporal_depth if level in temporal_levels else 0
      joint = joint or level >= len(widths) - joint_levels
      return unet_blocks.Block(
        cin,
        widths[level],
        embed_width=embed_width,
        heads=dict(head_size=head_size, implementation=attention),
        dropout=dropout,
        conv=layers.FullConv if convolution == 'full' else layers.Conv,
        attention=level in attention_levels,
        temporal=temporal,
        temporal_attention=level in temporal_attention_levels,
        joint_attention=joint and joint_attention and bool(temporal),
        text_width=text['width'] if text else 0,
        rngs=rngs,
      )

    width = widths[0]
    self.stem = layers.Conv(time_patch * channels, width, rngs=rngs)
    self.stem_low = (
      layers.Conv(
        time_patch * low, width, rngs=rngs, init_scale=0.0, bias=False
      )
      if low
      else None
    )
    skips = []
    for level in range(len(widths)):
      if level > 0:
        if resample == 'linear':
          down = unet_blocks.LinearDown(width, widths[level], rngs=rngs)
          width = widths[level]
        else:
          down = layers.Conv(width, width, stride=2, rngs=rngs)
        setattr(self, f'down_{level}_resample', down)
      for i in range(blocks[level]):
        block = make_block(width, level)
        setattr(self, f'down_{level}_block_{i}', block)
        width = widths[level]
        skips.append(width)
    self.middle_block = make_block(width, len(widths) - 1, joint=True)
    for level in reversed(range(len(widths))):
      for i in range(blocks[level]):
        block = make_block(width + skips.pop(), level)
        setattr(self, f'up_{level}_block_{i}', block)
        width = widths[level]
      if level > 0:
        if resample == 'linear':
          up = unet_blocks.LinearUp(width, widths[level - 1], rngs=rngs)
          width = widths[level - 1]
        else:
          up = unet_blocks.ConvUp(width, width, rngs=rngs)
        setattr(self, f'up_{level}_resample', up)
    self.head_norm = layers.GroupNorm(width)
    self.head_conv = layers.Conv(
      width, time_patch * channels, rngs=rngs, init_scale=0.0
    )

  def __call__(
    self,
    z: FloatArray['b t h w c'],
    levels: FloatArray['b t'],
    cond: dict[str, Array['b ...']],
    key: jax.Array | None = None,
  ) -> FloatArray['b t h w c']:
    """Predicts what `config.diffusion.prediction` says, in the dtype of z.

    Args:
      z: noisy latents, of variance near one.
      levels: log-SNR of each frame.
      cond: 'label' int [b], negative for the null label; with a text encoder
        what it reads; float [b] for each of `scalars`, NaN or left out for
        unknown; with a smaller video 'low' and 'low_noise', see `conditions`.
      key: typed keys [b] of the dropout; None for no dropout.
    """
    text, told = None, self.embed(levels, cond)
    if self.text is not None:
      text = self.text(cond, z.dtype)
      told = told + self.text.embed(*text)[:, None]
    told = nnx.silu(told).astype(z.dtype)

    def run(name, x):
      own = layers.keys_of_block(key, zlib.crc32(name.encode()))
      block = layers.rematerialised(self.remat, getattr(self, name))
      return block(x, told, own, text)

    x = self.stem(layers.space_to_depth(z, 1, self.time_patch))
    if self.stem_low is not None:
      low = cond['low'].astype(z.dtype)
      x = x + self.stem_low(layers.space_to_depth(low, 1, self.time_patch))
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
        x = getattr(self, f'up_{level}_resample')(x)
    x = self.head_conv(nnx.silu(self.head_norm(x)))
    return layers.depth_to_space(x, 1, self.time_patch)
