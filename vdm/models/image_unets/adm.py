"""ADM, the class-conditional U-Net of guided-diffusion, in pixels.

Dhariwal & Nichol, 2105.05233; https://github.com/openai/guided-diffusion. Its
files of weights come with the flags of a command and no config.json; here a
description has these flags under their names. Published networks predict the
noise and, in further channels that are dropped, its variance.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from etils.array_types import FloatArray
from flax import nnx

from vdm.models import attention
from vdm.models import layers
from vdm.models.image_unets import description
from vdm.models.image_unets import layout
from vdm.models.image_unets import skeleton
from vdm.models.image_unets import timesteps

# Levels by the size of images, where `channel_mult` is ''.
MULTIPLES = {
  32: (1, 2, 3, 4),
  64: (1, 2, 3, 4),
  128: (1, 1, 2, 3, 4),
  256: (1, 1, 2, 2, 4, 4),
  512: (0.5, 1, 1, 2, 2, 4, 4),
}
GROUPS = 32
# The flags of guided-diffusion and their defaults.
DEFAULTS = dict(
  image_size=64,
  num_channels=128,
  num_res_blocks=2,
  num_heads=4,
  num_heads_upsample=-1,
  num_head_channels=-1,
  attention_resolutions='16,8',
  channel_mult='',
  class_cond=False,
  use_scale_shift_norm=True,
  resblock_updown=False,
  use_new_attention_order=False,
  learn_sigma=False,
  diffusion_steps=1000,
  noise_schedule='linear',
  predict_xstart=False,
  rescale_timesteps=False,
  num_classes=1000,  # A constant there, if class_cond.
  in_channels=3,  # Likewise.
  norm_groups=GROUPS,  # Likewise.
)
# What neither weights nor functions depend on.
IGNORED = (
  'dropout',
  'use_checkpoint',
  'use_fp16',
  'timestep_respacing',
  'use_kl',
  'rescale_learned_sigmas',
)


class Description(NamedTuple):
  """What a description says.

  Attributes:
    sizes: of the skeleton.
    heads: (number, channels) of attention heads, of which -1 follows from the
      other.
    split_first: the order of queries, keys and values: whether these are split
      before heads are (`use_new_attention_order`), or in each head.
    variance: whether the file has as many channels again for the variance.
    noise: of its timesteps.
    prediction: a kind of `diffusion.process`.
    takes_text: no block attends to text.
    text_width: likewise.
  """

  sizes: layout.Sizes
  heads: tuple[int, int]
  split_first: bool
  variance: bool
  noise: timesteps.Noise
  prediction: str
  takes_text: bool = False
  text_width: int = 0

  def attention(
    self, place: layout.Place, implementation: str, rngs: nnx.Rngs
  ) -> nnx.Module:
    """Makes the attention at a place; see `attention.attend`."""
    number, channels = self.heads
    return Attention(
      place.cout,
      number if channels < 0 else place.cout // channels,
      split_first=self.split_first,
      groups=self.sizes.groups,
      implementation=implementation,
      rngs=rngs,
    )


def parse(content: Mapping[str, Any]) -> Description:
  """Returns what a description means.

  Args:
    content: flags of guided-diffusion; those left out have its defaults.

  Raises:
    DescriptionError: a flag is unknown, or has a value that this cannot do.
  """
  flags = description.read(content, DEFAULTS, IGNORED)
  if flags['num_heads_upsample'] not in (-1, flags['num_heads']):
    description.refuse('num_heads_upsample', flags['num_heads_upsample'])
  if flags['num_res_blocks'] < 1:
    description.refuse('num_res_blocks', flags['num_res_blocks'])
  steps = flags['diffusion_steps']
  if flags['rescale_timesteps'] and steps != 1000:
    description.refuse('rescale_timesteps', True)
  multiples = _numbers(flags, 'channel_mult', float)
  if not multiples:
    if flags['image_size'] not in MULTIPLES:
      description.refuse('image_size', flags['image_size'])
    multiples = MULTIPLES[flags['image_size']]
  widths = tuple(int(x * flags['num_channels']) for x in multiples)
  # The sizes of grids with attention, as in guided-diffusion.
  grids = _numbers(flags, 'attention_resolutions', int)
  factors = {flags['image_size'] // n for n in grids if n > 0}
  attends = tuple(2**level in factors for level in range(len(widths)))
  heads = flags['num_heads'], flags['num_head_channels']
  groups = flags['norm_groups']
  for width in widths:
    if width <= 0 or groups <= 0 or width % groups:
      description.refuse('num_channels', flags['num_channels'])
    if heads[1] == 0 or width % (heads[0] if heads[1] < 0 else heads[1]):
      description.refuse('num_head_channels', heads[1])
  sizes = layout.Sizes(
    channels=flags['in_channels'],
    features=flags['num_channels'],
    widths=widths,
    blocks=(flags['num_res_blocks'],) * len(widths),
    down_attention=attends,
    up_attention=attends,
    classes=flags['num_classes'] if flags['class_cond'] else 0,
    groups=groups,
    scale_shift=flags['use_scale_shift_norm'],
    residual_resampling=flags['resblock_updown'],
  )
  return Description(
    sizes,
    heads,
    flags['use_new_attention_order'],
    flags['learn_sigma'],
    timesteps.make_noise(
      {'linear': 'ddpm', 'cosine': 'cosine'}.get(
        flags['noise_schedule'], flags['noise_schedule']
      ),
      steps,
    ),
    'x0' if flags['predict_xstart'] else 'eps',
  )


def _numbers(flags, name, kind):
  """Returns the numbers of a flag with commas."""
  try:
    return tuple(kind(x) for x in flags[name].split(',') if x)
  except ValueError:
    description.refuse(name, flags[name])


class Attention(nnx.Module):
  """Attention over the positions of each frame."""

  def __init__(
    self,
    channels: int,
    heads: int,
    *,
    split_first: bool,
    groups: int,
    implementation: str,
    rngs: nnx.Rngs,
  ):
    self.heads, self.split_first = heads, split_first
    self.implementation = implementation
    self.norm = skeleton.norm(channels, groups, 1e-5)
    self.qkv = layers.Linear(channels, 3 * channels, rngs=rngs)
    self.out = layers.Linear(channels, channels, rngs=rngs, init_scale=0.0)

  def __call__(
    self, x: FloatArray['b t h w c'], context: None = None
  ) -> FloatArray['b t h w c']:
    del context
    b, t, h, w, c = x.shape
    y = self.qkv(self.norm(x)).reshape(b * t, h * w, -1)
    if self.split_first:
      y = y.reshape(b * t, h * w, 3, self.heads, c // self.heads)
      q, k, v = y[:, :, 0], y[:, :, 1], y[:, :, 2]
    else:
      y = y.reshape(b * t, h * w, self.heads, 3, c // self.heads)
      q, k, v = y[:, :, :, 0], y[:, :, :, 1], y[:, :, :, 2]
    y = attention.attend(q, k, v, self.implementation)
    return x + self.out(y.reshape(x.shape))
