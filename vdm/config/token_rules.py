"""Rules of masked tokens: what they need, and what is of noise alone.

As in `rules`, each problem is one sentence.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from vdm.config import sampling
from vdm.config import schema

# Of `sample`, what only samplers of noisy latents read.
NOISY = ('guidance_interval', 'guidance_rescale')


def problems(config: ConfigDict) -> Iterator[str]:
  """Yields what is wrong in a run's configuration, one sentence per problem."""
  objectives = {
    name: config.stages[name].objective
    for name in config.train.order
    if name in config.stages
  }
  of_tokens = [name for name, x in objectives.items() if x == 'tokens']
  of_noise = [
    name for name, x in objectives.items() if x in ('diffusion', 'consistency')
  ]
  if config.model.kind == 'transformer' and of_noise:
    yield (
      'config.model.kind=transformer tells masked tokens, and config.stages.'
      f'{of_noise[0]} adds noise: set its objective to tokens, or '
      'config.model.kind to unet.'
    )
  if config.sample.method == 'unmask' and of_noise:
    yield (
      'config.sample.method=unmask is of masked tokens, and config.stages.'
      f'{of_noise[0]} adds noise: sample it with ddim, heun or dpmpp.'
    )
  if of_noise:
    changed = schema.changed('sample', config.sample, sampling.UNMASKING)
    for key, default in changed.items():
      yield (
        f'config.sample.{key} is of masked tokens, and config.stages.'
        f'{of_noise[0]} adds noise: leave it at {default}.'
      )
  if of_tokens:
    yield from _stage_problems(config, of_tokens)
    yield from _noise_problems(config.sample)


def _stage_problems(config: ConfigDict, names: list[str]) -> Iterator[str]:
  prefix, autoencoder = f'config.stages.{names[0]}', config.autoencoder
  if config.model.kind != 'transformer':
    yield (
      f'{prefix}.objective=tokens trains a transformer, and config.model.kind='
      f'{config.model.kind}: set config.model.kind=transformer.'
    )
  if autoencoder.kind != 'kl' or autoencoder.bottleneck != 'fsq':
    yield (
      f'{prefix}.objective=tokens needs an autoencoder whose latents are '
      'tokens: set config.autoencoder.kind=kl and bottleneck=fsq.'
    )
  for name in names:
    if noise := config.stages[name].context_noise:
      yield (
        f'config.stages.{name}.context_noise={noise:g}: tokens are known or '
        'masked and have no noise, so set it to 0.'
      )
  if not config.tokens.eval_shares:
    yield 'config.tokens.eval_shares is empty: give at least one share.'


def _noise_problems(sample: ConfigDict) -> Iterator[str]:
  for key, default in schema.changed('sample', sample, NOISY).items():
    yield (
      f'config.sample.{key} is of noise levels, which masked tokens do not '
      f'have: leave it at {default}.'
    )


def sample_problems(
  stage: ConfigDict, sample: ConfigDict, worse: ConfigDict | None
) -> Iterator[str]:
  """Yields why a network cannot be sampled as `sample` says.

  Args:
    stage: of the network.
    sample: `config.sample`, as it applies to the stage.
    worse: the configuration of a network to guide against, if any.
  """
  tokens = stage.objective == 'tokens'
  if tokens and sample.method != 'unmask':
    yield (
      f'Method {sample.method} is of noisy latents, and the network fills in '
      'masked tokens: leave the method at unmask.'
    )
  if not tokens and sample.method == 'unmask':
    yield (
      'Method unmask is of masked tokens, and the network removes noise: '
      'sample it with ddim, heun or dpmpp.'
    )
  if not tokens and sample.temperature != 1:
    yield (
      f'Temperature {sample.temperature:g} is of masked tokens, and the '
      'network removes noise: leave it at 1.'
    )
  if sample.temperature <= 0:
    yield (
      f'Temperature {sample.temperature:g} leaves nothing to draw: give more '
      'than 0, for the likeliest tokens 0.001.'
    )
  if worse is not None and tokens != (worse.model.kind == 'transformer'):
    yield (
      'A network of masked tokens and one that removes noise cannot guide each '
      'other: name another one to guide against.'
    )


def task_problems(
  history_guidance: float, context_noise: float | None
) -> Iterator[str]:
  """Yields why tokens cannot be filled in for a `rollouts.Task` with these."""
  if history_guidance != 1:
    yield (
      'History guidance shows a network noise in place of held frames, and '
      'masked tokens have none: leave it at 1.'
    )
  if context_noise:
    yield (
      'Held frames of masked tokens are known and have no noise: leave the '
      'context noise at 0.'
    )
