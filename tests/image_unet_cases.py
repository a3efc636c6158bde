"""Small networks of both families of published image models, as descriptions.

Known to the scripts of the golden arrays, which run in an environment without
jax, and to the tests.
"""

import numpy as np

LEVELS = (-1.3, 2.2)  # Log-SNR of the two frames.
LABEL = 2
SCHEDULER = dict(
  num_train_timesteps=1000,
  beta_schedule='scaled_linear',
  beta_start=0.00085,
  beta_end=0.012,
)
CONDITIONAL = {
  'sd1': dict(
    block_out_channels=[16, 32],
    down_block_types=['CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types=['UpBlock2D', 'CrossAttnUpBlock2D'],
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=4,
    cross_attention_dim=24,
  ),
  'sd2': dict(
    block_out_channels=[16, 32],
    down_block_types=['DownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types=['CrossAttnUpBlock2D', 'UpBlock2D'],
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=[2, 4],
    cross_attention_dim=24,
    use_linear_projection=True,
    upcast_attention=True,
    num_class_embeds=5,
    prediction_type='v_prediction',
  ),
  'small': dict(  # No middle, other numbers of blocks, everywhere text.
    block_out_channels=[16, 24],
    down_block_types=['CrossAttnDownBlock2D'] * 2,
    mid_block_type=None,
    up_block_types=['UpBlock2D', 'CrossAttnUpBlock2D'],
    layers_per_block=[1, 2],
    transformer_layers_per_block=[1, 2],
    norm_num_groups=8,
    attention_head_dim=[2, 4],
    cross_attention_dim=24,
    resnet_time_scale_shift='scale_shift',
    beta_schedule='squaredcos_cap_v2',
  ),
}
ADM = {
  'published': dict(  # Like the network of 64x64.
    num_channels=32,
    num_res_blocks=1,
    channel_mult='1,2',
    attention_resolutions='32',
    num_head_channels=16,
    class_cond=True,
    learn_sigma=True,
    noise_schedule='cosine',
    resblock_updown=True,
    use_new_attention_order=True,
    use_scale_shift_norm=True,
  ),
  'legacy': dict(
    num_channels=32,
    num_res_blocks=2,
    channel_mult='1,2',
    attention_resolutions='32',
    num_heads=2,
    learn_sigma=True,
    resblock_updown=False,
    use_scale_shift_norm=False,
  ),
  'mixed': dict(
    num_channels=32,
    num_res_blocks=1,
    channel_mult='2,1',
    attention_resolutions='64',
    num_head_channels=32,
    class_cond=True,
    resblock_updown=True,
    use_scale_shift_norm=True,
  ),
}
CLASSES = 1000  # Of ADM.


def frames(channels, height=16, width=8):
  """Two noisy frames, [2, h, w, c]."""
  random = np.random.RandomState(0)
  return random.standard_normal((2, height, width, channels)).astype('f')


def text(width=24, tokens=5):
  """(tokens [1, n, d], mask [1, n]) of a clip; two of them do not exist."""
  random = np.random.RandomState(1)
  values = random.standard_normal((1, tokens, width)).astype('f')
  return values, np.arange(tokens)[None] < tokens - 2


def null_text(width=24, tokens=5):
  """Tokens [n, d] of an empty prompt, all of which exist."""
  random = np.random.RandomState(2)
  return random.standard_normal((tokens, width)).astype('f')


def timestep(alphas_cumprod, level):
  """The timestep at a log-SNR, from the other library's table, float64."""
  table = np.asarray(alphas_cumprod, np.float64)
  table = np.log(table) - np.log1p(-table)
  return np.interp(-level, -table, np.arange(len(table)))
