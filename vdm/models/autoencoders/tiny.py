"""Tiny autoencoders of single frames, with published weights.

TAESD and its variants (Bohan, https://github.com/madebyollin/taesd, MIT)
imitate the autoencoders of large image models with 1.2 M parameters per side:
taesd and taesdxl (4 channels), taesd3 and taef1 (16), taef2 (32, whose coarsest
blocks depend on the whole frame through a norm). Three strided convolutions,
nearest neighbour upsampling, ReLU throughout. The encoder has no posterior: its
log-variance is that of no noise. The parameters' names and shapes determine the
variant, also the number of blocks per level: (1, 3, 3, 3) and (3, 3, 3, 1) in
those above.
"""

import functools
import re
from typing import Any, NamedTuple

from etils.array_types import FloatArray
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from vdm import models
from vdm.models import import_weights
from vdm.models import layers
from vdm.models.autoencoders import latents


class Sizes(NamedTuple):
  """The sizes of one side.

  Attributes:
    channels: of a latent.
    width: channels of all levels.
    blocks: residual blocks per level, in the order of the side.
    normed: whether the coarsest blocks have a normed branch.
  """

  channels: int
  width: int
  blocks: tuple[int, ...]
  normed: bool


class Block(nnx.Module):
  """Three convolutions and a skip, with or without a normed branch before."""

  def __init__(self, width: int, normed: bool, *, rngs: nnx.Rngs):
    for i in range(3):
      setattr(self, f'conv_{i}', layers.Conv(width, width, rngs=rngs))
    self.normed = normed
    if normed:
      inner = 4 * width
      self.pool_in = layers.Conv(width, inner, 1, rngs=rngs, bias=False)
      self.pool_norm = layers.GroupNorm(inner, group_size=width)
      self.pool_out = layers.Conv(inner, width, 1, rngs=rngs, bias=False)

  def __call__(self, x: FloatArray['*b h w c']) -> FloatArray['*b h w c']:
    if self.normed:
      x = x + self.pool_out(jax.nn.relu(self.pool_norm(self.pool_in(x))))
    y = jax.nn.relu(self.conv_0(x))
    y = jax.nn.relu(self.conv_1(y))
    return jax.nn.relu(self.conv_2(y) + x)


class Encoder(nnx.Module):
  """Frames in [0, 1] to latents, half the size per level after the first."""

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    channels, width, self.blocks, normed = sizes
    self.stem = layers.Conv(3, width, rngs=rngs)
    for level, blocks in enumerate(self.blocks):
      if level:
        # PyTorch pads the first side too, which 'SAME' does not.
        down = layers.Conv(
          width,
          width,
          rngs=rngs,
          stride=2,
          padding=((1, 1), (1, 1)),
          bias=False,
        )
        setattr(self, f'down_{level}', down)
      coarsest = level == len(self.blocks) - 1
      for i in range(blocks):
        block = Block(width, normed and coarsest, rngs=rngs)
        setattr(self, f'block_{level}_{i}', block)
    self.head = layers.Conv(width, channels, rngs=rngs)

  def __call__(self, x: FloatArray['*b h w 3']) -> FloatArray['*b y x c']:
    x = self.stem(x)
    for level, blocks in enumerate(self.blocks):
      if level:
        x = getattr(self, f'down_{level}')(x)
      for i in range(blocks):
        x = getattr(self, f'block_{level}_{i}')(x)
    return self.head(x)


class Decoder(nnx.Module):
  """Latents to frames, approximately in [0, 1]."""

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    channels, width, self.blocks, normed = sizes
    self.stem = layers.Conv(channels, width, rngs=rngs)
    for level, blocks in enumerate(self.blocks):
      for i in range(blocks):
        block = Block(width, normed and level == 0, rngs=rngs)
        setattr(self, f'block_{level}_{i}', block)
      if level < len(self.blocks) - 1:
        up = layers.Conv(width, width, rngs=rngs, bias=False)
        setattr(self, f'up_{level}', up)
    self.head = layers.Conv(width, 3, rngs=rngs)

  def __call__(self, z: FloatArray['*b y x c']) -> FloatArray['*b h w 3']:
    x = jax.nn.relu(self.stem(3.0 * jnp.tanh(z / 3.0)))
    for level, blocks in enumerate(self.blocks):
      for i in range(blocks):
        x = getattr(self, f'block_{level}_{i}')(x)
      if level < len(self.blocks) - 1:
        x = getattr(self, f'up_{level}')(layers.upsample(x))
    return self.head(x)


@functools.cache
def network(side: str, sizes: Sizes) -> models.Network:
  """Returns the functions of one side, 'encoder' or 'decoder'."""
  module = {'encoder': Encoder, 'decoder': Decoder}[side]
  return models.functional(module, sizes)


def encode(
  params: dict[str, Any], x: FloatArray['b t h w 3']
) -> tuple[FloatArray['b t y x c'], FloatArray['b t y x c']]:
  """Returns the latents of frames in [-1, 1], and a constant log-variance."""
  z = network('encoder', sizes(params, 'encoder')).apply(
    params['encoder'], (x + 1.0) / 2.0
  )
  return latents.deterministic(z)


def decode(
  params: dict[str, Any], z: FloatArray['b t y x c']
) -> FloatArray['b t h w 3']:
  """Returns the frames of latents, approximately in [-1, 1]."""
  x = network('decoder', sizes(params, 'decoder')).apply(params['decoder'], z)
  return 2.0 * x - 1.0


def sizes(params: dict[str, Any], side: str) -> Sizes:
  """Returns the sizes of the parameters of one side."""
  params = params[side]
  end, axis = ('head', -1) if side == 'encoder' else ('stem', -2)
  names = re.findall(r'\b(block|down|up)_(\d+)', ' '.join(params))
  levels = 1 + max((int(n) + (kind == 'up') for kind, n in names), default=0)
  coarsest = levels - 1 if side == 'encoder' else 0
  return Sizes(
    channels=params[end]['kernel'].shape[axis],
    width=params['stem']['kernel'].shape[-1],
    blocks=tuple(
      sum(name.startswith(f'block_{level}_') for name in params)
      for level in range(levels)
    ),
    normed=any(
      'pool_in' in part
      for name, part in params.items()
      if name.startswith(f'block_{coarsest}_')
    ),
  )


def channels(params: dict[str, Any], side: str = 'decoder') -> int:
  """Returns the number of channels of a latent."""
  return sizes(params, side).channels


def factor(params: dict[str, Any], side: str = 'decoder') -> int:
  """Returns the pixels per latent along h and w."""
  return 2 ** (len(sizes(params, side).blocks) - 1)


def describe(params: dict[str, Any]) -> dict[str, Any]:
  """Returns what the `config.json` of a network of such parameters says."""
  encoder, decoder = sizes(params, 'encoder'), sizes(params, 'decoder')
  return {
    '_class_name': 'AutoencoderTiny',
    'encoder_block_out_channels': [encoder.width] * len(encoder.blocks),
    'decoder_block_out_channels': [decoder.width] * len(decoder.blocks),
    'num_encoder_blocks': list(encoder.blocks),
    'num_decoder_blocks': list(decoder.blocks),
    'latent_channels': encoder.channels,
    'act_fn': 'relu',
    'upsample_fn': 'nearest',
    'upsampling_scaling_factor': 2,
    'in_channels': 3,
    'out_channels': 3,
  }


def abstract_params(params: dict[str, Any]) -> dict[str, Any]:
  """Returns the shapes of all parameters of a network like that of `params`."""
  return {
    side: network(side, sizes(params, side)).abstract_params()
    for side in ('encoder', 'decoder')
  }


def convert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Converts published names and layouts to those of `Encoder` and `Decoder`.

  Args:
    tensors: by name, of one file, of one side or both. Names are the authors'
      (`1.conv.0.weight`, with or without the side in front) or diffusers'
      (`encoder.layers.1.conv.0.weight`).

  Returns:
    {'/'-joined path: array}.

  Raises:
    WeightsError: a tensor does not belong to such a network.
  """
  # The decoder's layer 0 is a clamp.
  default = 'encoder' if '0.weight' in tensors else 'decoder'
  found = {'encoder': {}, 'decoder': {}}  # {side: {place: {part: (name, x)}}}
  for name, array in tensors.items():
    match = re.fullmatch(
      r'(?:(?:taesd_)?(encoder|decoder)\.)?(layers\.)?(\d{1,4})\.(.+)', name
    )
    side, diffusers, index, part = match.groups() if match else [None] * 4
    side = side or default
    if part not in PARTS:
      raise _no_part(name)
    # diffusers does not count the clamp.
    place = int(index) + bool(diffusers and side == 'decoder')
    found[side].setdefault(place, {})[part] = name, array
  flat = {}
  for side, places in found.items():
    for place, layer in _name_layers(side, places).items():
      for part, (_, array) in places[place].items():
        if array.ndim == 4:
          array = array.transpose(2, 3, 1, 0)
        flat[f'{side}/{layer}/{PARTS[part]}'] = array
  return flat


def _no_part(name):
  return import_weights.WeightsError(
    f'{name[:80]} is not a tensor of a tiny autoencoder.'
  )


# Names of the parts of a convolution, then of a block.
PARTS = {
  'weight': 'kernel',
  'bias': 'bias',
  'pool.0.weight': 'pool_in/kernel',
  'pool.1.weight': 'pool_norm/scale',
  'pool.1.bias': 'pool_norm/bias',
  'pool.3.weight': 'pool_out/kernel',
} | {
  f'conv.{2 * i}.{theirs}': f'conv_{i}/{ours}'
  for i in range(3)
  for theirs, ours in (('weight', 'kernel'), ('bias', 'bias'))
}


def _name_layers(side, places):
  """Returns {place: name} of one side's layers; see `convert`.

  Args:
    side: 'encoder' or 'decoder'.
    places: {place in the authors' order: {part: (name in the file, array)}}.
      Blocks and convolutions follow each other; what has no parameters leaves
      a gap: the decoder's clamp, its ReLU, and the upsampling before `up`.
  """
  encoder = side == 'encoder'
  names, level, block, expected = {}, 0, 0, 0 if encoder else 1
  for place in sorted(places):
    is_block = any('.' in part for part in places[place])
    gap = place - expected
    if gap == 2 and is_block and not encoder:  # `match` names what is missing.
      level, block, gap = level + 1, 0, 0
    if not names and not gap:
      names[place] = 'stem'
    elif is_block and not gap:
      names[place], block = f'block_{level}_{block}', block + 1
    elif encoder and not gap and place < max(places):
      level, block = level + 1, 0
      names[place] = f'down_{level}'
    elif not encoder and not is_block and gap == 1:
      names[place] = f'up_{level}'
      level, block = level + 1, 0
    elif not gap and place == max(places):
      names[place] = 'head'
    else:
      raise _no_part(next(iter(places[place].values()))[0])
    expected = place + 1 + (not encoder and names[place] == 'stem')
  return names
