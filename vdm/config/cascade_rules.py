"""Rules of networks that enlarge a smaller video, see `model.low`.

As in `rules`, each problem is one sentence.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict


def is_told(model: ConfigDict) -> bool:
  """Returns whether a network is told a smaller video.

  Args:
    model: `config.model`.
  """
  return model.low.space_factor > 1 or model.low.time_factor > 1


def problems(config: ConfigDict) -> Iterator[str]:
  """Yields what is wrong in a run's configuration, one sentence per problem."""
  low, sample = config.model.low, config.sample
  if not is_told(config.model):
    if low.residual:
      yield (
        'config.model.low.residual=True is of a smaller video, and the network '
        'is told none: set config.model.low.space_factor.'
      )
    if sample.low_noise:
      yield (
        f'config.sample.low_noise={sample.low_noise:g} is of a smaller video, '
        'and the network is told none: set config.model.low.space_factor or '
        'time_factor, or leave it at 0.'
      )
    return
  if config.model.kind != 'unet':
    yield (
      f'config.model.kind={config.model.kind} is told no smaller video: set '
      'config.model.low.space_factor and time_factor to 1, or kind to unet.'
    )
  if low.residual and (low.space_factor == 1 or low.time_factor > 1):
    yield (
      'config.model.low.residual=True makes what larger frames have beyond '
      'smaller ones: it takes space_factor above 1 and time_factor=1, since '
      'added frames lack everything.'
    )
  if low.noise[1] >= 1:
    yield (
      f'config.model.low.noise={tuple(low.noise)} has a sigma of 1 or more, '
      'which leaves nothing of the smaller video: end below 1, at 0.5 for '
      'instance.'
    )
  yield from noise_problems(config.model, sample.low_noise)
  if config.data.latents:
    yield (
      'config.data.latents holds no frames, of which the smaller videos of '
      'config.model.low are made: leave one of them out.'
    )
  if sample.image_first:
    yield (
      'config.sample.image_first=True invents the first frame, and the smaller '
      'video of config.model.low shows it: leave one of them out.'
    )
  if sample.captions:
    yield (
      'config.sample.captions are of videos from words alone, and those of '
      'config.model.low are of held-out clips and their captions: leave them '
      'out.'
    )
  for name in config.train.order:
    if config.stages[name].objective != 'autoencoder':
      yield from _stage_problems(config, name)


def noise_problems(
  model: ConfigDict, sigma: float, key: str = 'config.sample.low_noise'
) -> Iterator[str]:
  """Yields why a smaller video cannot be shown with noise of `sigma`.

  Args:
    model: `config.model`.
    sigma: of the noise.
    key: that says so.
  """
  least, most = model.low.noise
  if not least <= sigma <= most:
    yield (
      f'{key}={sigma:g} is outside of what is trained, '
      f'config.model.low.noise={tuple(model.low.noise)}.'
    )


def _stage_problems(config: ConfigDict, name: str) -> Iterator[str]:
  stage, low, prefix = config.stages[name], config.model.low, 'config.stages.'
  prefix += name
  space, time = low.space_factor, low.time_factor
  if stage.objective != 'diffusion':
    yield (
      f'{prefix}.objective={stage.objective} makes videos from nothing, and '
      'config.model.low is of a smaller one: set it to diffusion.'
    )
  for key in ('resolution', 'width', 'crop'):
    if stage[key] % space:
      yield (
        f'{prefix}.{key}={stage[key]} is not divisible by '
        f'config.model.low.space_factor={space}.'
      )
  if stage.frames % time:
    yield (
      f'{prefix}.frames={stage.frames} is not divisible by '
      f'config.model.low.time_factor={time}.'
    )
  if time > 1 and stage.image_fraction:
    yield (
      f'{prefix}.image_fraction={stage.image_fraction:g} takes single frames, '
      f'and config.model.low.time_factor={time} adds frames between others: '
      'set it to 0.'
    )
