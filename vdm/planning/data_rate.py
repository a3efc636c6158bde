"""Clips a second that this machine's pipeline makes of a data set."""

import time

from ml_collections import ConfigDict

from vdm.data import builders
from vdm.planning import costs
from vdm.planning import disk
from vdm.training import inputs


def measure(config: ConfigDict, stage: str, seconds: float) -> float | None:
  """Returns clips a second, or None if the data set is not built.

  The first batch, with which threads and workers start, is not timed.

  Args:
    config: the run's; frames are read, also where it names cached latents.
    stage: name of the stage.
    seconds: to measure for.
  """
  directory = disk.data_folder(config)
  if not directory:
    return None
  config = config.copy_and_resolve_references().unlock()
  config.data.latents = ''
  span = costs.find_span(config, stage)
  source = builders.open_source(directory, 'train', config.data.split_list)
  with inputs.make_batches(config, source, span, 0) as batches:
    next(batches)
    started, clips = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
      try:
        clips += len(next(batches)['label'])
      except StopIteration:  # A stage of few steps.
        break
  return clips / spent if clips else None
