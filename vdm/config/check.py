"""Says what is impossible in a configuration, in one sentence.

`validate` needs no device and no data; `check_devices` adds what depends on
the machine. What only the mathematics can tell (a weighting that vanishes at
zero terminal SNR) is checked where it is computed.
"""

import math
from typing import Any

from vdm.config import rules
from vdm.config import schema
from vdm.config import serialize
from vdm.config import suggest

ConfigDict = schema.ConfigDict

# Keys with a closed list of values. `stage.` stands for every stage.
CHOICES = {
  'data.name': (
    *('synthetic_scenes', 'ucf101', 'video_folder', 'driving', 'webvid'),
  ),
  'data.encoding': ('webp', 'jpeg'),
  'data.split_list': ('01', '02', '03'),
  'data.scenes.objects': (1, 2, 3),
  'data.scenes.ground': ('plain', 'textured'),
  'data.scenes.motion': ('straight', 'gravity'),
  'autoencoder.kind': ('kl', 'pca', 'identity', 'tiny', 'autoencoder_kl'),
  'autoencoder.bottleneck': ('kl', 'fsq'),
  'autoencoder.factor': (4, 8),
  'autoencoder.scale': ('shared', 'channel'),
  'model.convolution': ('factorised', 'full'),
  'model.remat': ('none', 'block', 'dots'),
  'diffusion.schedule': ('cosine', 'flow', 'linear'),
  'diffusion.prediction': ('x0', 'eps', 'v', 'flow'),
  'diffusion.weighting': ('x0', 'eps', 'v', 'flow', 'min_snr', 'edm'),
  'diffusion.density': ('normal', 'uniform'),
  'optim.name': ('adamw', 'muon'),
  'score.best': (
    'motion',
    'spectrum',
    'texture',
    'appearance',
    'panel',
    'none',
  ),
  'sample.method': ('ddim', 'heun', 'dpmpp'),
  'sample.grid': ('time', 'logsnr', 'rho'),
  'train.compute_dtype': ('float32', 'bfloat16'),
  'stage.objective': ('autoencoder', 'diffusion'),
}
# Numbers are at least 0; these are more than that.
POSITIVE = frozenset(
  """
  data.resolution data.frame_rate data.stride data.threads data.assumed_rate
  data.min_frames data.screening.cut_distance data.screening.cut_ratio
  data.screening.frozen_seconds data.screening.max_motion
  data.limits.seconds data.limits.stall_seconds data.limits.pixels
  data.scenes.train data.scenes.validation data.scenes.frames
  autoencoder.channels autoencoder.scaling_factor
  autoencoder.levels autoencoder.encoder_width
  autoencoder.decoder_width autoencoder.discriminator_width
  autoencoder.statistics_clips
  model.widths model.blocks model.temporal_depth model.head_size
  model.embed_width diffusion.density_std optim.eps optim.ema
  sample.steps sample.rho sample.sigma_min sample.sigma_max sample.num
  sample.batch score.num train.fsdp train.log_every train.eval_every
  train.eval_clips train.preview_every train.save_every train.save_minutes
  train.keep train.peer_seconds train.barrier_minutes
  stage.steps stage.frames stage.resolution stage.batch
  stage.accumulate stage.learning_rate
  """.split()
)
# These may be negative.
SIGNED = frozenset(
  """
  autoencoder.shift_factor
  autoencoder.initial_logvar
  diffusion.logsnr_min diffusion.logsnr_max diffusion.density_mean
  diffusion.bin_edges diffusion.eval_levels sample.guidance_interval
  """.split()
)
# These are at most 1.
SHARES = frozenset(
  """
  data.validation data.screening.min_distinct data.screening.max_overlay
  data.screening.max_overlay_sources data.screening.duplicate_distance
  model.label_dropout model.dropout optim.b1 optim.b2 optim.muon_momentum
  sample.eta sample.guidance_rescale stage.image_fraction stage.cooldown
  """.split()
)


def validate(config: ConfigDict) -> None:
  """Checks everything that needs neither a device nor the data.

  Raises:
    ValueError: in one sentence, the first thing found wrong.
  """
  _check_keys(config)
  defaults = _wanted(config)
  for key, value in serialize.flatten(config).items():
    _check_value(key, value, defaults[key])
  for problem in rules.problems(config):
    raise ValueError(problem)


def check_devices(
  config: ConfigDict, num_devices: int, num_hosts: int = 1
) -> None:
  """Checks that every stage's batch divides over the devices and hosts.

  Raises:
    ValueError: in one sentence, the first thing found wrong.
  """
  if num_devices % config.train.fsdp:
    raise ValueError(
      f'config.train.fsdp={config.train.fsdp} does not divide the '
      f'{num_devices} devices.'
    )
  for name in config.train.order:
    stage = config.stages[name]
    parts = math.lcm(num_devices, num_hosts) * stage.accumulate
    if stage.batch % parts:
      above = -(-stage.batch // parts) * parts
      raise ValueError(
        f'config.stages.{name}.batch={stage.batch} does not divide over '
        f'{num_devices} devices on {num_hosts} hosts in {stage.accumulate} '
        f'parts (accumulate): take a multiple of {parts}, such as {above}.'
      )


def _wanted(config: ConfigDict) -> dict[str, Any]:
  """Returns the flat keys that `config` should have, with their defaults."""
  keys = serialize.flatten(schema.default())
  stage = serialize.flatten(schema.stage())
  for name in config.get('stages', {}):
    keys |= {f'stages.{name}.{key}': value for key, value in stage.items()}
  return keys


def _check_keys(config: ConfigDict) -> None:
  wanted = _wanted(config)
  found = serialize.flatten(config)
  for key in found:
    if key not in wanted:
      raise ValueError(
        f'config.{key} is not a key: did you mean '
        f'config.{suggest.nearest(key, wanted)}?'
      )
  for key in wanted:
    if key not in found:
      raise ValueError(
        f'config.{key} is missing: start from default() and stage() of '
        'vdm/config.py.'
      )


def _check_value(key: str, value: Any, like: Any) -> None:
  """Checks the type of one value, its choices and its range."""
  if isinstance(like, tuple):
    if not isinstance(value, tuple):
      raise ValueError(f"config.{key}={value!r} is not a tuple, as in '(1,2)'.")
    # The empty defaults hold names.
    elements, like = value, like[0] if like else ''
  else:
    elements = (value,)
  kind = type(like)
  for element in elements:
    if kind is float and type(element) is int:
      continue
    if type(element) is not kind:
      raise ValueError(
        f'config.{key}={value!r} is wrong: {element!r} is not '
        f'{_KIND_NAMES[kind]}.'
      )
  name = _general(key)
  if name in CHOICES and value not in CHOICES[name]:
    nearest = suggest.nearest(str(value), map(str, CHOICES[name]))
    raise ValueError(
      f'config.{key}={value!r} is not one of '
      f'{", ".join(map(str, CHOICES[name]))}: did you mean {nearest}?'
    )
  if kind in (int, float):
    for element in elements:
      _check_range(key, name, element)


_KIND_NAMES = {
  bool: 'True or False',
  int: 'an integer',
  float: 'a number',
  str: 'a string',
}


def _general(key: str) -> str:
  """Returns a stage's key without the stage's name: 'stage.steps'."""
  if key.startswith('stages.'):
    return 'stage.' + key.split('.', 2)[2]
  return key


def _check_range(key: str, name: str, value: float) -> None:
  if not math.isfinite(value):
    raise ValueError(f'config.{key}={value} is not a finite number.')
  if name in POSITIVE and value <= 0:
    raise ValueError(f'config.{key}={value} is not positive.')
  if name not in SIGNED and value < 0:
    raise ValueError(f'config.{key}={value} is negative.')
  if name in SHARES and value > 1:
    raise ValueError(f'config.{key}={value} is a share: at most 1.')
