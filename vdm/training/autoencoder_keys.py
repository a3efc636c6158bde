"""Which keys of a configuration an autoencoder of its own depends on."""

import re

from ml_collections import ConfigDict

from vdm.training import resume

# Of the data and of training, whatever the stage.
_ALWAYS = r'(autoencoder|data|optim)\.|seed$|train\.compute_dtype$'


def trains_own(config: ConfigDict) -> bool:
  """Returns whether the run's first stage trains an autoencoder."""
  first = config.stages[config.train.order[0]]
  return first.objective == 'autoencoder'


def stages_of(config: ConfigDict) -> list[str]:
  """Returns the names of the stages that train an autoencoder."""
  return [
    name
    for name in config.train.order
    if config.stages[name].objective == 'autoencoder'
  ]


def enters(key: str, config: ConfigDict) -> bool:
  """Returns whether an autoencoder that the run trains depends on a key.

  The optimizer's keys count, as it trains the autoencoder too.

  Args:
    key: as in 'optim.eps'.
    config: of the run.
  """
  if any(re.search(pattern, key) for pattern in resume.FREE):
    return False
  if re.match(_ALWAYS, key):
    return True
  match = re.match(r'stages\.(\w+)\.', key)
  return match is not None and match[1] in stages_of(config)
