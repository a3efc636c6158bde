"""Tiny autoencoders of single frames, with published weights.

TAESD and its variants (Bohan, https://github.com/madebyollin/taesd, MIT)
imitate the autoencoders of large image models with 1.2 M parameters per side:
taesd and taesdxl (4 channels), taesd3 and taef1 (16), taef2 (32, whose coarsest
blocks depend on the whole frame through a norm). Three strided convolutions,
nearest neighbour upsampling, ReLU throughout. The encoder has no posterior: its
log-variance is that of no noise. The parameters' shapes determine the variant.
"""

import functools
import re
from typing import Any

from etils.array_types import FloatArray
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from vdm import models
from vdm.models import import_weights
from vdm.models import layers
from vdm.models.autoencoders import latents

ENCODER_BLOCKS = (1, 3, 3, 3)  # Residual blocks per level, finest first.
DECODER_BLOCKS = (3, 3, 3, 1)  # Coarsest first.


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
  """Frames in [0, 1] to latents, h / 8 by w / 8."""

  def __init__(
    self, channels: int, width: int, normed: bool, *, rngs: nnx.Rngs
  ):
    self.stem = layers.Conv(3, width, rngs=rngs)
    for level, blocks in enumerate(ENCODER_BLOCKS):
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
      coarsest = level == len(ENCODER_BLOCKS) - 1
      for i in range(blocks):
        block = Block(width, normed and coarsest, rngs=rngs)
        setattr(self, f'block_{level}_{i}', block)
    self.head = layers.Conv(width, channels, rngs=rngs)

  def __call__(self, x: FloatArray['*b h w 3']) -> FloatArray['*b y x c']:
    x = self.stem(x)
    for level, blocks in enumerate(ENCODER_BLOCKS):
      if level:
        x = getattr(self, f'down_{level}')(x)
      for i in range(blocks):
        x = getattr(self, f'block_{level}_{i}')(x)
    return self.head(x)


class Decoder(nnx.Module):
  """Latents to frames, approximately in [0, 1]."""

  def __init__(
    self, channels: int, width: int, normed: bool, *, rngs: nnx.Rngs
  ):
    self.stem = layers.Conv(channels, width, rngs=rngs)
    for level, blocks in enumerate(DECODER_BLOCKS):
      for i in range(blocks):
        block = Block(width, normed and level == 0, rngs=rngs)
        setattr(self, f'block_{level}_{i}', block)
      if level < len(DECODER_BLOCKS) - 1:
        up = layers.Conv(width, width, rngs=rngs, bias=False)
        setattr(self, f'up_{level}', up)
    self.head = layers.Conv(width, 3, rngs=rngs)

  def __call__(self, z: FloatArray['*b y x c']) -> FloatArray['*b h w 3']:
    x = jax.nn.relu(self.stem(3.0 * jnp.tanh(z / 3.0)))
    for level, blocks in enumerate(DECODER_BLOCKS):
      for i in range(blocks):
        x = getattr(self, f'block_{level}_{i}')(x)
      if level < len(DECODER_BLOCKS) - 1:
        x = getattr(self, f'up_{level}')(layers.upsample(x))
    return self.head(x)


@functools.cache
def network(
  side: str, channels: int, width: int, normed: bool
) -> models.Network:
  """Returns the functions of one side, 'encoder' or 'decoder'."""
  module = {'encoder': Encoder, 'decoder': Decoder}[side]
  return models.functional(module, channels, width, normed)


def encode(
  params: dict[str, Any], x: FloatArray['b t h w 3']
) -> tuple[FloatArray['b t y x c'], FloatArray['b t y x c']]:
  """Returns the latents of frames in [-1, 1], and a constant log-variance."""
  z = network('encoder', *sizes(params)).apply(
    params['encoder'], (x + 1.0) / 2.0
  )
  return latents.deterministic(z)


def decode(
  params: dict[str, Any], z: FloatArray['b t y x c']
) -> FloatArray['b t h w 3']:
  """Returns the frames of latents, approximately in [-1, 1]."""
  x = network('decoder', *sizes(params)).apply(params['decoder'], z)
  return 2.0 * x - 1.0


def sizes(params: dict[str, Any]) -> tuple[int, int, bool]:
  """Returns (channels, width, normed) of a network's parameters."""
  kernel = params['encoder']['head']['kernel']
  normed = 'pool_in' in params['encoder']['block_3_0']
  return kernel.shape[-1], kernel.shape[-2], normed


def channels(params: dict[str, Any]) -> int:
  """Returns the number of channels of a latent."""
  return sizes(params)[0]


def factor(params: dict[str, Any]) -> int:
  """Returns the pixels per latent along h and w."""
  del params
  return 2 ** (len(ENCODER_BLOCKS) - 1)


def abstract_params(params: dict[str, Any]) -> dict[str, Any]:
  """Returns the shapes of all parameters of a network like that of `params`."""
  return {
    side: network(side, *sizes(params)).abstract_params()
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
  flat = {}
  for name, array in tensors.items():
    match = re.fullmatch(
      r'(?:(?:taesd_)?(encoder|decoder)\.)?(layers\.)?(\d+)\.(.+)', name
    )
    side, diffusers, index, part = match.groups() if match else [None] * 4
    side = side or default
    # diffusers does not count the clamp.
    place = int(index or 0) + bool(diffusers and side == 'decoder')
    names = order(side)
    if part not in PARTS or place >= len(names) or not names[place]:
      raise import_weights.WeightsError(
        f'{name[:80]} is not a tensor of a tiny autoencoder.'
      )
    if array.ndim == 4:
      array = array.transpose(2, 3, 1, 0)
    flat[f'{side}/{names[place]}/{PARTS[part]}'] = array
  return flat


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


def order(side: str) -> list[str]:
  """Returns the layers in the authors' order, '' without parameters."""
  if side == 'encoder':
    names = []
    for level, blocks in enumerate(ENCODER_BLOCKS):
      names += [f'down_{level}' if level else 'stem']
      names += [f'block_{level}_{i}' for i in range(blocks)]
  else:
    names = ['', 'stem', '']  # A clamp before it, a ReLU after it.
    for level, blocks in enumerate(DECODER_BLOCKS):
      names += [f'block_{level}_{i}' for i in range(blocks)]
      if level < len(DECODER_BLOCKS) - 1:
        names += ['', f'up_{level}']  # Upsampling comes first.
  return [*names, 'head']
