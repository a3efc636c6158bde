"""How the network of a stage is sampled."""

from ml_collections import ConfigDict

UNMASKING = ('temperature', 'order_noise')  # Keys of `sample` for tokens alone.


def others(method: str) -> tuple[str, ...]:
  """Returns the keys of `sample` that a method leaves out of its records."""
  return () if method == 'unmask' else UNMASKING


def of_stage(config: ConfigDict, stage: ConfigDict) -> ConfigDict:
  """Returns a run's configuration with `sample` as it applies to a stage.

  A consistency model has its own sampler, in few steps and without guidance,
  which is distilled into it; masked tokens have theirs. The rest of `sample`
  stays. Of diffusion stages it is the configuration itself.

  Args:
    config: the run's.
    stage: the stage's, in which the network was trained.
  """
  if stage.objective not in ('consistency', 'tokens'):
    return config
  config = config.copy_and_resolve_references()
  if stage.objective == 'tokens':
    config.sample.update(method='unmask', eta=0.0)
    return config
  config.sample.update(method='consistency', steps=config.consistency.steps)
  config.sample.update(guidance=1.0, guidance_by='', eta=0.0)
  return config
