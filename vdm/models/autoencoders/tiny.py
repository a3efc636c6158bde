"""Tiny autoencoders of single frames, with published weights.

TAESD and its kin (Bohan, https://github.com/madebyollin/taesd, MIT) imitate
the autoencoders of large image models with 1.2 M parameters a side: taesd and
taesdxl (4 channels), taesd3 and taef1 (16), taef2 (32, whose coarsest blocks
see the whole frame through a norm). Three halvings, nearest neighbours on the
way up, ReLU throughout. Encoding has no posterior: the log-variance is that of
no noise. Which of them a network is, its parameters' shapes say.
"""

import functools
import re

from flax import nnx
import jax
import jax.numpy as jnp

from vdm import models
from vdm.models import import_weights
from vdm.models import layers
from vdm.models.autoencoders import latents

ENCODER_BLOCKS = (1, 3, 3, 3)  # Residual blocks a level, finest first.
DECODER_BLOCKS = (3, 3, 3, 1)  # And coarsest first.


class Block(nnx.Module):
  """Three convolutions beside a skip; a normed branch before them or not."""

  def __init__(self, width, normed, *, rngs):
    for i in range(3):
      setattr(self, f'conv_{i}', layers.Conv(width, width, rngs=rngs))
    self.normed = normed
    if normed:
      inner = 4 * width
      self.pool_in = layers.Conv(width, inner, 1, rngs=rngs, bias=False)
      self.pool_norm = layers.GroupNorm(inner, group_size=width)
      self.pool_out = layers.Conv(inner, width, 1, rngs=rngs, bias=False)

  def __call__(self, x):
    if self.normed:
      x = x + self.pool_out(jax.nn.relu(self.pool_norm(self.pool_in(x))))
    y = jax.nn.relu(self.conv_0(x))
    y = jax.nn.relu(self.conv_1(y))
    return jax.nn.relu(self.conv_2(y) + x)


class Encoder(nnx.Module):
  """[..., h, w, 3] in [0, 1] -> [..., h / 8, w / 8, channels]."""

  def __init__(self, channels, width, normed, *, rngs):
    self.stem = layers.Conv(3, width, rngs=rngs)
    for level, blocks in enumerate(ENCODER_BLOCKS):
      if level:
        # PyTorch's windows begin one pixel outside; 'SAME' ones would not.
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

  def __call__(self, x):
    x = self.stem(x)
    for level, blocks in enumerate(ENCODER_BLOCKS):
      if level:
        x = getattr(self, f'down_{level}')(x)
      for i in range(blocks):
        x = getattr(self, f'block_{level}_{i}')(x)
    return self.head(x)


class Decoder(nnx.Module):
  """[..., h, w, channels] -> [..., 8 h, 8 w, 3], about in [0, 1]."""

  def __init__(self, channels, width, normed, *, rngs):
    self.stem = layers.Conv(channels, width, rngs=rngs)
    for level, blocks in enumerate(DECODER_BLOCKS):
      for i in range(blocks):
        block = Block(width, normed and level == 0, rngs=rngs)
        setattr(self, f'block_{level}_{i}', block)
      if level < len(DECODER_BLOCKS) - 1:
        up = layers.Conv(width, width, rngs=rngs, bias=False)
        setattr(self, f'up_{level}', up)
    self.head = layers.Conv(width, 3, rngs=rngs)

  def __call__(self, z):
    x = jax.nn.relu(self.stem(3.0 * jnp.tanh(z / 3.0)))
    for level, blocks in enumerate(DECODER_BLOCKS):
      for i in range(blocks):
        x = getattr(self, f'block_{level}_{i}')(x)
      if level < len(DECODER_BLOCKS) - 1:
        x = getattr(self, f'up_{level}')(layers.upsample(x))
    return self.head(x)


@functools.cache
def network(side, channels, width, normed):
  """The functions of one side, 'encoder' or 'decoder'."""
  make = {'encoder': Encoder, 'decoder': Decoder}[side]
  return models.functional(
    lambda key: make(channels, width, normed, rngs=nnx.Rngs(params=key))
  )


def encode(params, x):
  """Latents of frames in [-1, 1]: (mean, constant log-variance)."""
  z = network('encoder', *sizes(params)).apply(
    params['encoder'], (x + 1.0) / 2.0
  )
  return latents.certain(z)


def decode(params, z):
  """Frames of latents, about in [-1, 1]."""
  x = network('decoder', *sizes(params)).apply(params['decoder'], z)
  return 2.0 * x - 1.0


def sizes(params):
  """(channels, width, normed) of a network's parameters."""
  kernel = params['encoder']['head']['kernel']
  normed = 'pool_in' in params['encoder']['block_3_0']
  return kernel.shape[-1], kernel.shape[-2], normed


def channels(params):
  """Channels of a latent."""
  return sizes(params)[0]


def factor(params):
  """Pixels that a latent stands for along h and w."""
  del params
  return 2 ** (len(ENCODER_BLOCKS) - 1)


def abstract(params):
  """Shapes of all parameters of a network of the sizes of `params`."""
  return {
    side: jax.eval_shape(network(side, *sizes(params)).init, jax.random.key(0))
    for side in ('encoder', 'decoder')
  }


def convert(tensors):
  """Published names and layouts -> those of `Encoder` and `Decoder`.

  Args:
    tensors: {name: array} of one file, of one side or both. Names are the
      authors' (`1.conv.0.weight`, a side before it or not) or diffusers'
      (`encoder.layers.1.conv.0.weight`).

  Returns:
    {'/'-joined path: array}.

  Raises:
    WeightsError: a tensor belongs to no such network.
  """
  # The decoder's layer 0 is a clamp.
  default = 'encoder' if '0.weight' in tensors else 'decoder'
  flat = {}
  for name, array in tensors.items():
    match = re.fullmatch(
      r'(?:(?:taesd_)?(encoder|decoder)\.)?(layers\.)?(\d+)\.(.+)', name
    )
    side, numbered_on, index, part = match.groups() if match else [None] * 4
    side = side or default
    # diffusers does not count the clamp.
    place = int(index or 0) + bool(numbered_on and side == 'decoder')
    names = order(side)
    if part not in PARTS or place >= len(names) or not names[place]:
      raise import_weights.WeightsError(
        f'{name[:80]} is no tensor of a tiny autoencoder.'
      )
    if array.ndim == 4:
      array = array.transpose(2, 3, 1, 0)
    flat[f'{side}/{names[place]}/{PARTS[part]}'] = array
  return flat


# Of a convolution, then of a block.
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


def order(side):
  """The layers as the authors number them; '' for one without parameters."""
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
        names += ['', f'up_{level}']  # The doubling comes first.
  return [*names, 'head']
