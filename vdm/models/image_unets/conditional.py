"""The conditional U-Net of Stable Diffusion and of its smaller descendants.

A description is the `config.json` that diffusers writes of a
UNet2DConditionModel, with the keys of the scheduler's scheduler_config.json
that say what timesteps and outputs mean. SD 1.x and 2.x, BK-SDM and segmind's
small ones differ in these alone (Rombach et al., 2112.10752; Kim et al.,
2305.15798).

Text is cond['text'] [b n d] with cond['text_mask'] [b n]. Published networks
were trained with all 77 tokens of CLIP's, padding included, and with an empty
prompt where there is no text: the mask of both is true throughout.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import nnx

from vdm.models.image_unets import description
from vdm.models.image_unets import layout
from vdm.models.image_unets import timesteps
from vdm.models.image_unets import transformer

WITH_TEXT = {'CrossAttnDownBlock2D': True, 'DownBlock2D': False}
UP_WITH_TEXT = {'CrossAttnUpBlock2D': True, 'UpBlock2D': False}
MIDDLE = {'UNetMidBlock2DCrossAttn': 2, 'UNetMidBlock2D': 1, None: 0}
PREDICTIONS = {'epsilon': 'eps', 'v_prediction': 'v', 'sample': 'x0'}

# Keys that this follows, with diffusers' defaults.
DEFAULTS = dict(
  in_channels=4,
  out_channels=4,
  flip_sin_to_cos=True,
  freq_shift=0,
  down_block_types=['CrossAttnDownBlock2D'] * 3 + ['DownBlock2D'],
  mid_block_type='UNetMidBlock2DCrossAttn',
  up_block_types=['UpBlock2D'] + ['CrossAttnUpBlock2D'] * 3,
  block_out_channels=[320, 640, 1280, 1280],
  layers_per_block=2,
  norm_num_groups=32,
  norm_eps=1e-5,
  cross_attention_dim=1280,
  transformer_layers_per_block=1,
  attention_head_dim=8,  # In fact the number of heads.
  use_linear_projection=False,
  num_class_embeds=None,
  resnet_time_scale_shift='default',
  # Of the scheduler.
  num_train_timesteps=1000,
  beta_schedule='scaled_linear',
  beta_start=0.00085,
  beta_end=0.012,
  prediction_type='epsilon',
)
# Keys that diffusers has in scheduler_config.json.
SCHEDULER = (
  'num_train_timesteps',
  'beta_schedule',
  'beta_start',
  'beta_end',
  'prediction_type',
)
# Keys of a number, or of one for each level.
PER_LEVEL = (
  'layers_per_block',
  'cross_attention_dim',
  'attention_head_dim',
  'transformer_layers_per_block',
)
# Keys of a value of this type, or of None.
OPTIONAL = {'mid_block_type': str, 'num_class_embeds': int}
# Keys that have to be as they are in this family.
FIXED = dict(
  center_input_sample=False,
  only_cross_attention=False,
  downsample_padding=1,
  mid_block_scale_factor=1,
  act_fn='silu',
  reverse_transformer_layers_per_block=None,
  encoder_hid_dim=None,
  encoder_hid_dim_type=None,
  num_attention_heads=None,
  dual_cross_attention=False,
  class_embed_type=None,
  addition_embed_type=None,
  addition_time_embed_dim=None,
  resnet_skip_time_act=False,
  resnet_out_scale_factor=1.0,
  time_embedding_type='positional',
  time_embedding_dim=None,
  time_embedding_act_fn=None,
  timestep_post_act=None,
  time_cond_proj_dim=None,
  conv_in_kernel=3,
  conv_out_kernel=3,
  projection_class_embeddings_input_dim=None,
  attention_type='default',
  class_embeddings_concat=False,
  mid_block_only_cross_attention=None,
  cross_attention_norm=None,
  # Of the scheduler.
  trained_betas=None,
  rescale_betas_zero_snr=False,
)
# What neither weights nor functions depend on; logits are float32 anyway.
IGNORED = (
  'sample_size',
  'dropout',
  'upcast_attention',
  'addition_embed_type_num_heads',
)


class Description(NamedTuple):
  """What a description says.

  Attributes:
    sizes: of the skeleton.
    heads: attention heads of each level.
    depth: transformer blocks after a residual block of each level.
    text_widths: channels of text, of each level.
    linear: whether projections around transformers are matrices in the file, or
      1 x 1 convolutions; the same function.
    noise: of its timesteps.
    prediction: a kind of `diffusion.process`.
  """

  sizes: layout.Sizes
  heads: tuple[int, ...]
  depth: tuple[int, ...]
  text_widths: tuple[int, ...]
  linear: bool
  noise: timesteps.Noise
  prediction: str

  @property
  def takes_text(self) -> bool:
    """Whether any block attends to text."""
    return any(place.attention for place in layout.places(self.sizes))

  @property
  def text_width(self) -> int:
    """Channels of the text; 0 if no block attends to it."""
    return max(self.text_widths) if self.takes_text else 0

  def attention(
    self, place: layout.Place, implementation: str, rngs: nnx.Rngs
  ) -> nnx.Module:
    """Makes the attention at a place; see `attention.attend`."""
    return transformer.Transformer(
      place.cout,
      depth=self.depth[place.level],
      heads=self.heads[place.level],
      text_width=self.text_widths[place.level],
      groups=self.sizes.groups,
      implementation=implementation,
      rngs=rngs,
    )


def parse(content: Mapping[str, Any]) -> Description:
  """Returns what a description means.

  Args:
    content: of config.json; keys that are left out have diffusers' defaults.

  Raises:
    DescriptionError: a key is unknown, or has a value that this cannot do.
  """
  values = _values(content)
  widths = _per_level(values, 'block_out_channels', None)
  levels = len(widths)
  down, up = (
    _choices(values, f'{part}_block_types', known, levels)
    for part, known in (('down', WITH_TEXT), ('up', UP_WITH_TEXT))
  )
  middle = values['mid_block_type']
  if middle not in MIDDLE:
    description.refuse('mid_block_type', middle)
  if values['in_channels'] != values['out_channels']:
    description.refuse('in_channels', values['in_channels'])
  if values['resnet_time_scale_shift'] not in ('default', 'scale_shift'):
    description.refuse(
      'resnet_time_scale_shift', values['resnet_time_scale_shift']
    )
  if values['prediction_type'] not in PREDICTIONS:
    description.refuse('prediction_type', values['prediction_type'])
  groups = values['norm_num_groups']
  heads = _per_level(values, 'attention_head_dim', levels)
  if any(groups < 1 or width % groups for width in widths):
    description.refuse('norm_num_groups', groups)
  if any(width % number for width, number in zip(widths, heads)):
    description.refuse('attention_head_dim', values['attention_head_dim'])
  if values['num_class_embeds'] is not None and values['num_class_embeds'] < 1:
    description.refuse('num_class_embeds', values['num_class_embeds'])
  sizes = layout.Sizes(
    channels=values['in_channels'],
    features=widths[0],
    widths=widths,
    blocks=_per_level(values, 'layers_per_block', levels),
    down_attention=down,
    up_attention=up[::-1],
    middle=MIDDLE[middle],
    classes=values['num_class_embeds'] or 0,
    groups=groups,
    epsilon=values['norm_eps'],
    scale_shift=values['resnet_time_scale_shift'] == 'scale_shift',
    cosine_first=values['flip_sin_to_cos'],
    frequency_shift=float(values['freq_shift']),
  )
  noise = timesteps.make_noise(
    {'squaredcos_cap_v2': 'cosine'}.get(
      values['beta_schedule'], values['beta_schedule']
    ),
    values['num_train_timesteps'],
    values['beta_start'],
    values['beta_end'],
  )
  return Description(
    sizes,
    heads,
    _per_level(values, 'transformer_layers_per_block', levels),
    _per_level(values, 'cross_attention_dim', levels),
    values['use_linear_projection'],
    noise,
    PREDICTIONS[values['prediction_type']],
  )


def _values(content):
  """Returns the values of DEFAULTS; refuses others where these matter."""
  rest, given = {}, {}
  for name, value in content.items():
    if name in FIXED:
      # Some are one for each level.
      found = value if isinstance(value, list) else [value]
      if any(x != FIXED[name] for x in found):
        description.refuse(name, value)
    elif name in OPTIONAL:
      if value is not None and type(value) is not OPTIONAL[name]:
        description.refuse(name, value)
      given[name] = value
    elif name in PER_LEVEL and isinstance(value, list):
      given[name] = value
    else:
      rest[name] = value
  defaults = {k: v for k, v in DEFAULTS.items() if k not in given}
  return description.read(rest, defaults, IGNORED) | given


def _per_level(values, name, levels):
  """Returns a positive number for each level."""
  value = values[name]
  if not isinstance(value, list):
    value = [value] * levels
  if (
    not value
    or (levels is not None and len(value) != levels)
    or any(type(x) is not int or x < 1 for x in value)
  ):
    description.refuse(name, values[name])
  return tuple(value)


def _choices(values, name, known, levels):
  """Returns what a list of types of blocks means, one for each level."""
  types = values[name]
  if len(types) != levels or any(x not in known for x in types):
    description.refuse(name, types)
  return tuple(known[x] for x in types)
