"""What a run stores: its data set, latents, and checkpoints."""

import math
import os

from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.data import builders
from vdm.preparation import datasets
from vdm.trained import snapshots as kept_averages


def data_folder(config: ConfigDict) -> str | None:
  """Returns the folder of the configuration's data set; None: not built."""
  try:
    directory = datasets.dataset_dir(config.data)
  except (
    OSError,
    ValueError,
    builders.BuildError,
  ):  # Its name depends on videos that are not here.
    return None
  return directory if builders.is_complete(directory) else None


def data_set(config: ConfigDict) -> int | None:
  """Returns the bytes of the configuration's data set; None: not built."""
  directory = data_folder(config)
  return folder(directory) if directory else None


def latents(config: ConfigDict) -> int | None:
  """Returns the bytes of a latent cache of the data set; None: not built.

  Mean and log-variance of every frame of both splits in float16, and again of
  mirrored frames where training mirrors.
  """
  directory = data_folder(config)
  if not directory:
    return None
  frames = sum(
    int(builders.open_source(directory, split).index['n'].sum())
    for split in ('train', 'validation')
  )
  options = config.autoencoder
  factor = 1 if options.kind == 'identity' else options.factor
  channels = 3 if options.kind == 'identity' else options.channels
  copies = 2 if config.data.flip else 1
  positions = math.prod(x // factor for x in sizes.of(config.data))
  return 2 * 2 * copies * frames * positions * channels


def checkpoints(config: ConfigDict, state: int, parameters: int) -> int:
  """Returns the most bytes that the checkpoints of a run take.

  Args:
    config: the run's.
    state: bytes of the training state.
    parameters: number of them.
  """
  options = config.train
  steps = sum(config.stages[name].steps for name in options.order)
  kept = options.keep + (
    steps // options.keep_every if options.keep_every else 0
  )
  # One more is written before the oldest is deleted.
  averages = 4 * len(config.optim.ema) * parameters
  best = 2 * averages if config.score.best != 'none' else 0
  return state * (kept + 1) + best


def snapshots(config: ConfigDict, parameters: dict[str, int]) -> int:
  """Returns the bytes of all snapshots of averages.

  Args:
    config: the run's.
    parameters: numbers of them, by stage.
  """
  total = 0
  for name in config.train.order:
    if kept := kept_averages.planned(config, config.stages[name]):
      total += 4 * len(config.optim.ema) * len(kept) * parameters[name]
  return total


def folder(directory: str) -> int:
  """Returns the bytes of all files in a folder."""
  return sum(
    os.path.getsize(os.path.join(where, name))
    for where, _, names in os.walk(directory)
    for name in names
  )
