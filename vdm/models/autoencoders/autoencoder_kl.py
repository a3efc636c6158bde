"""The autoencoders of latent diffusion on images, with published weights.

AutoencoderKL (Rombach et al., 2112.10752): residual convolutions, three strided
ones, attention over the frame in the middle, a Gaussian posterior. Its variants
differ in sizes, in 1 x 1 convolutions around the latents and in whether there
is attention, which the names and shapes of the parameters determine, and in
the number of groups of their norms, which only their `config.json` says:

              channels  scaling_factor  shift_factor
  SD, ft-mse  4         0.18215         0
  SDXL        4         0.13025         0
  SD3         16        1.5305          0.0609
  FLUX.1      16        0.3611          0.1159

Published diffusion models are trained on (z - shift) * scale; a run normalises
by the statistics of its own data, which cancel any such choice.
"""

from collections.abc import Callable
import functools
import re
from typing import Any, NamedTuple

from etils.array_types import FloatArray
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from vdm import models
from vdm.models import layers

GROUPS = 32  # Of every norm of the variants above; diffusers' default.
LOGVAR = (-30.0, 20.0)  # Range of the log-variance.


class Sizes(NamedTuple):
  """The sizes of one side.

  Attributes:
    channels: of a latent.
    widths: channels of each level, in the order of the side.
    blocks: residual blocks per level.
    attention: whether the middle has attention.
    quant: whether there is a 1 x 1 convolution at the latents.
  """

  channels: int
  widths: tuple[int, ...]
  blocks: int
  attention: bool
  quant: bool


def _norm(channels, groups):
  return layers.GroupNorm(channels, group_size=channels // groups, epsilon=1e-6)


class Residual(nnx.Module):
  """Two convolutions after norms, and a skip."""

  def __init__(self, cin: int, cout: int, groups: int, *, rngs: nnx.Rngs):
    self.norm1 = _norm(cin, groups)
    self.conv1 = layers.Conv(cin, cout, rngs=rngs)
    self.norm2 = _norm(cout, groups)
    self.conv2 = layers.Conv(cout, cout, rngs=rngs)
    self.conv_shortcut = (
      layers.Conv(cin, cout, 1, rngs=rngs) if cin != cout else None
    )

  def __call__(self, x: FloatArray['*b h w c']) -> FloatArray['*b h w d']:
    y = self.conv1(jax.nn.silu(self.norm1(x)))
    y = self.conv2(jax.nn.silu(self.norm2(y)))
    return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
  """One head over all positions of a frame."""

  def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
    self.group_norm = _norm(channels, groups)
    for name in ('to_q', 'to_k', 'to_v', 'to_out'):
      setattr(self, name, layers.Linear(channels, channels, rngs=rngs))

  def __call__(self, x: FloatArray['*b h w c']) -> FloatArray['*b h w c']:
    *leading, h, w, c = x.shape
    y = self.group_norm(x).reshape(-1, h * w, 1, c)
    y = jax.nn.dot_product_attention(self.to_q(y), self.to_k(y), self.to_v(y))
    return x + self.to_out(y).reshape(*leading, h, w, c)


class Middle(nnx.Module):
  """Two residual blocks at the coarsest level, with or without attention."""

  def __init__(
    self, channels: int, attention: bool, groups: int, *, rngs: nnx.Rngs
  ):
    self.block_0 = Residual(channels, channels, groups, rngs=rngs)
    self.attention = (
      Attention(channels, groups, rngs=rngs) if attention else None
    )
    self.block_1 = Residual(channels, channels, groups, rngs=rngs)

  def __call__(self, x: FloatArray['*b h w c']) -> FloatArray['*b h w c']:
    x = self.block_0(x)
    if self.attention is not None:
      x = self.attention(x)
    return self.block_1(x)


class Encoder(nnx.Module):
  """Frames to mean and log-variance, 2 channels in all."""

  def __init__(self, sizes: Sizes, groups: int, *, rngs: nnx.Rngs):
    channels, widths, blocks, attention, quant = sizes
    self.levels, self.blocks = len(widths), blocks
    self.conv_in = layers.Conv(3, widths[0], rngs=rngs)
    cin = widths[0]
    for level, width in enumerate(widths):
      for i in range(blocks):
        block = Residual(cin, width, groups, rngs=rngs)
        setattr(self, f'level_{level}_block_{i}', block)
        cin = width
      if level < self.levels - 1:
        # Padded at the end of each axis alone.
        down = layers.Conv(
          width, width, rngs=rngs, stride=2, padding=((0, 1), (0, 1))
        )
        setattr(self, f'down_{level}', down)
    self.middle = Middle(cin, attention, groups, rngs=rngs)
    self.conv_norm_out = _norm(cin, groups)
    self.conv_out = layers.Conv(cin, 2 * channels, rngs=rngs)
    both = 2 * channels
    self.quant_conv = layers.Conv(both, both, 1, rngs=rngs) if quant else None

  def __call__(self, x: FloatArray['*b h w 3']) -> FloatArray['*b y x d']:
    x = self.conv_in(x)
    for level in range(self.levels):
      for i in range(self.blocks):
        x = getattr(self, f'level_{level}_block_{i}')(x)
      if level < self.levels - 1:
        x = getattr(self, f'down_{level}')(x)
    x = self.conv_out(jax.nn.silu(self.conv_norm_out(self.middle(x))))
    return x if self.quant_conv is None else self.quant_conv(x)


class Decoder(nnx.Module):
  """Latents to frames; level 0 is the coarsest."""

  def __init__(self, sizes: Sizes, groups: int, *, rngs: nnx.Rngs):
    channels, widths, blocks, attention, quant = sizes
    self.levels, self.blocks = len(widths), blocks
    self.quant_conv = (
      layers.Conv(channels, channels, 1, rngs=rngs) if quant else None
    )
    cin = widths[0]
    self.conv_in = layers.Conv(channels, cin, rngs=rngs)
    self.middle = Middle(cin, attention, groups, rngs=rngs)
    for level, width in enumerate(widths):
      for i in range(blocks):
        block = Residual(cin, width, groups, rngs=rngs)
        setattr(self, f'level_{level}_block_{i}', block)
        cin = width
      if level < self.levels - 1:
        setattr(self, f'up_{level}', layers.Conv(width, width, rngs=rngs))
    self.conv_norm_out = _norm(cin, groups)
    self.conv_out = layers.Conv(cin, 3, rngs=rngs)

  def __call__(self, z: FloatArray['*b y x c']) -> FloatArray['*b h w 3']:
    x = z if self.quant_conv is None else self.quant_conv(z)
    x = self.middle(self.conv_in(x))
    for level in range(self.levels):
      for i in range(self.blocks):
        x = getattr(self, f'level_{level}_block_{i}')(x)
      if level < self.levels - 1:
        x = getattr(self, f'up_{level}')(layers.upsample(x))
    return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


def make(
  scaling_factor: float = 1.0, shift_factor: float = 0.0, groups: int = GROUPS
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns (encode, decode) over {'encoder', 'decoder'}.

  Args:
    scaling_factor: the scale of latents (z - shift) * scale.
    shift_factor: their shift.
    groups: of every norm; the only size that parameters do not determine.
  """

  def encode(params, x):
    apply = network('encoder', sizes(params, 'encoder'), groups).apply
    mean, logvar = jnp.split(apply(params['encoder'], x), 2, axis=-1)
    logvar = jnp.clip(logvar, *LOGVAR)
    logvar = logvar + 2.0 * jnp.log(scaling_factor).astype(logvar.dtype)
    return (mean - shift_factor) * scaling_factor, logvar

  def decode(params, z):
    apply = network('decoder', sizes(params, 'decoder'), groups).apply
    return apply(params['decoder'], z / scaling_factor + shift_factor)

  return encode, decode


@functools.cache
def network(side: str, sizes: Sizes, groups: int = GROUPS) -> models.Network:
  """Returns the functions of one side, 'encoder' or 'decoder'."""
  module = {'encoder': Encoder, 'decoder': Decoder}[side]
  return models.functional(module, sizes, groups)


def sizes(params: dict[str, Any], side: str) -> Sizes:
  """Returns the sizes of the parameters of one side."""
  params = params[side]
  levels = sum(name.endswith('_block_0') for name in params)
  widths = tuple(
    params[f'level_{level}_block_0']['conv1']['kernel'].shape[-1]
    for level in range(levels)
  )
  blocks = sum(name.startswith('level_0_block_') for name in params)
  if side == 'encoder':
    channels = params['conv_out']['kernel'].shape[-1] // 2
  else:
    channels = params['conv_in']['kernel'].shape[-2]
  attention = 'attention' in params['middle']
  return Sizes(channels, widths, blocks, attention, 'quant_conv' in params)


def channels(params: dict[str, Any], side: str = 'decoder') -> int:
  """Returns the number of channels of a latent."""
  return sizes(params, side).channels


def factor(params: dict[str, Any], side: str = 'decoder') -> int:
  """Returns the pixels per latent along h and w."""
  return 2 ** (len(sizes(params, side).widths) - 1)


def describe(params: dict[str, Any]) -> dict[str, Any]:
  """Returns what the `config.json` of a network of such parameters says."""
  encoder, decoder = sizes(params, 'encoder'), sizes(params, 'decoder')
  levels = len(encoder.widths)
  return {
    '_class_name': 'AutoencoderKL',
    'block_out_channels': list(encoder.widths),
    'layers_per_block': encoder.blocks,
    'latent_channels': encoder.channels,
    'mid_block_add_attention': encoder.attention,
    'use_quant_conv': encoder.quant,
    'use_post_quant_conv': decoder.quant,
    'down_block_types': ['DownEncoderBlock2D'] * levels,
    'up_block_types': ['UpDecoderBlock2D'] * levels,
    'act_fn': 'silu',
    'in_channels': 3,
    'out_channels': 3,
  }


def check_groups(params: dict[str, Any], groups: int) -> None:
  """Raises a ValueError if norms of this many groups do not exist."""
  ends = [sizes(params, side).widths for side in ('encoder', 'decoder')]
  for width in sum(ends, ()):
    if width % groups:
      raise ValueError(
        f'norms of {groups} groups do not divide its {width} channels'
      )


def abstract_params(params: dict[str, Any]) -> dict[str, Any]:
  """Returns the shapes of all parameters of a network like that of `params`."""
  return {
    # The shapes are those of any number of groups.
    side: network(side, sizes(params, side), 1).abstract_params()
    for side in ('encoder', 'decoder')
  }


def abstract_published(channels: int) -> dict[str, Any]:
  """Returns the shapes of the published networks, of SD for 4 channels."""
  widths, quant = (128, 256, 512, 512), channels == 4
  sides = {'encoder': (widths, 2), 'decoder': (widths[::-1], 3)}
  return {
    side: network(side, Sizes(channels, *own, True, quant)).abstract_params()
    for side, own in sides.items()
  }


def convert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Converts published names and layouts to those of `Encoder` and `Decoder`.

  Args:
    tensors: by name, as in diffusers, its older files or the original latent
      diffusion code, alone or in the checkpoint of a whole model, of which
      other tensors are ignored.

  Returns:
    {'/'-joined path: array}.
  """
  flat = {}
  start = r'(?P<prefix>(.*\.)?)'
  found = [
    re.fullmatch(start + r'decoder\.conv_in\.weight', n) for n in tensors
  ]
  prefix = next((match['prefix'] for match in found if match), '')
  levels = 1 + max(
    (int(n) for n in re.findall(r'decoder\.up\.(\d+)\.', '\n'.join(tensors))),
    default=-1,
  )
  for name, array in tensors.items():
    if not name.startswith(prefix):
      continue
    path = name.removeprefix(prefix)
    if not re.match(r'(encoder|decoder|quant_conv|post_quant_conv)\.', path):
      continue
    # In these names the coarsest level of the decoder is the last.
    path = re.sub(
      r'\.up\.(\d+)\.',
      lambda match: f'.up_blocks.{levels - 1 - int(match[1])}.',
      path,
    )
    for theirs, ours in NAMES:
      path = re.sub(theirs, ours, path)
    if '.to_' in path and array.ndim > 1:  # A matrix or a 1 x 1 kernel.
      array = array.reshape(array.shape[:2]).T
    elif array.ndim == 4:
      array = array.transpose(2, 3, 1, 0)
    weight = 'scale' if re.search(r'norm\w*\.weight$', path) else 'kernel'
    path = re.sub(r'\.weight$', f'.{weight}', path)
    flat[path.replace('.', '/')] = array
  return flat


# Patterns of the names of latent diffusion's code, older and newer diffusers.
NAMES = (
  (r'^quant_conv\.', 'encoder.quant_conv.'),
  (r'^post_quant_conv\.', 'decoder.quant_conv.'),
  (r'\.norm_out\.', '.conv_norm_out.'),
  (r'\.nin_shortcut\.', '.conv_shortcut.'),
  (r'\.mid\.attn_1\.', '.middle.attention.'),
  (r'\.mid_block\.attentions\.0\.', '.middle.attention.'),
  (r'\.mid\.block_1\.', '.middle.block_0.'),
  (r'\.mid\.block_2\.', '.middle.block_1.'),
  (r'\.mid_block\.resnets\.(\d)\.', r'.middle.block_\1.'),
  (r'\.attention\.norm\.', '.attention.group_norm.'),
  (r'\.(q|query)\.', '.to_q.'),
  (r'\.(k|key)\.', '.to_k.'),
  (r'\.(v|value)\.', '.to_v.'),
  (r'\.(proj_out|proj_attn|to_out\.0)\.', '.to_out.'),
  (
    r'\.(down|down_blocks|up_blocks)\.(\d+)\.(block|resnets)\.(\d+)\.',
    r'.level_\2_block_\4.',
  ),
  (
    r'\.(down|down_blocks)\.(\d+)\.(downsample|downsamplers\.0)\.conv\.',
    r'.down_\2.',
  ),
  (r'\.up_blocks\.(\d+)\.(upsample|upsamplers\.0)\.conv\.', r'.up_\1.'),
)
