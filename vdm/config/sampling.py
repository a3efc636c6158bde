"""How the network of a stage is sampled."""

from ml_collections import ConfigDict

from vdm.config import condition_rules

UNMASKING = ('temperature', 'order_noise')  # Keys of `sample` for tokens alone.


def others(method: str) -> tuple[str, ...]:
  """Returns the keys of `sample` that a method leaves out of its records."""
  return () if method == 'unmask' else UNMASKING


def words(options: ConfigDict) -> str:
  """Returns the method and its steps, for people.

  Args:
    options: `config.sample` as it applies to the stage, see `of_stage`.
  """
  noise = f' with noise (eta {options.eta:g})' if options.eta else ''
  return f'{options.method}{noise}, {options.steps} steps'


def of_stage(config: ConfigDict, stage: ConfigDict) -> ConfigDict:
  """Returns a run's configuration with `sample` as it applies to a stage.

  A consistency model has its own sampler, in few steps and without guidance,
  which is distilled into it; masked tokens have theirs. A stage of no more than
  `sample.autoguide` updates has no earlier average to be guided against, nor
  has an autoencoder. The rest stays: of most diffusion stages it is the
  configuration itself.

  Args:
    config: the run's.
    stage: the stage's, in which the network was trained.
  """
  makes_videos = stage.objective != 'autoencoder'
  if not makes_videos or stage.steps <= config.sample.autoguide:
    config = by_conditions(config)
  if stage.objective not in ('consistency', 'tokens'):
    return config
  config = config.copy_and_resolve_references()
  if stage.objective == 'tokens':
    config.sample.update(method='unmask', eta=0.0)
    return config
  config.sample.update(method='consistency', steps=config.consistency.steps)
  config.sample.update(guidance=1.0, guidance_by='', eta=0.0, autoguide=0)
  return config


def without_autoguide(config: ConfigDict) -> ConfigDict:
  """Returns a run's configuration that guides against no earlier average."""
  if not config.sample.autoguide:
    return config
  config = config.copy_and_resolve_references()
  config.sample.autoguide = 0
  return config


def by_conditions(config: ConfigDict) -> ConfigDict:
  """Returns a run's configuration where there is no earlier average yet.

  It is guided by the conditions in its place, and by nothing if training never
  drops them.
  """
  if not config.sample.autoguide:
    return config
  config = without_autoguide(config)
  options = config.sample
  if any(condition_rules.guidance_problems(config.model, options.guidance, '')):
    options.guidance = 1.0
  return config


def earlier_step(config: ConfigDict, name: str) -> int:
  """Returns the global step whose average a stage is guided against; or 0.

  Args:
    config: the run's, `sample` as it applies to the stage, see `of_stage`.
    name: of the stage.
  """
  if not config.sample.autoguide:
    return 0
  order = list(config.train.order)
  before = order[: order.index(name)]
  start = sum(config.stages[x].steps for x in before)
  return start + config.sample.autoguide
