"""What the processes of a run must have alike, compared before it starts.

Every process reads its own configuration and its own copy of the data set, if
hosts have disks of their own. Where these differ the run would hang, or train
on batches that are not those of any data set.
"""

import hashlib
import json
import re
from typing import Any

import jax
from ml_collections import ConfigDict
import numpy as np

from vdm.common import errors
from vdm.config import serialize
from vdm.data import builders
from vdm.multihost import coordination
from vdm.preparation import datasets

# Where a host has its files, and how many of its processors it uses.
OWN = re.compile(r'data\.(root|source|latents|texts|threads|workers)')
SHOWN = 4  # Differences that a message has.


def check_config(config: ConfigDict) -> None:
  """Checks that all processes were given one configuration.

  Raises:
    UsageError: on all processes; says which one differs, and in what.
  """
  mine = {
    key: value
    for key, value in serialize.flatten(config).items()
    if not OWN.fullmatch(key)
  }
  texts = coordination.gather('the configuration', json.dumps(mine))
  for process, text in enumerate(texts):
    if text != texts[0]:
      first, other = json.loads(texts[0]), json.loads(text)
      keys = sorted(
        key
        for key in first.keys() | other.keys()
        if first.get(key) != other.get(key)
      )
      raise errors.UsageError(
        f'{coordination.process_names([process])} was given another '
        'configuration than process 0: '
        + '; '.join(
          f'config.{key}={other.get(key)!r}, not {first.get(key)!r}'
          for key in keys[:SHOWN]
        )
        + f' and {len(keys) - SHOWN} more' * (len(keys) > SHOWN)
        + '. Start the same code with the same flags everywhere.'
      )


def open_sources(data: ConfigDict) -> dict[str, builders.ClipSource]:
  """Opens the data set's splits, the same on all processes.

  Args:
    data: `config.data`.

  Returns:
    {'train': source, 'validation': source}.

  Raises:
    MissingDataset: there is none. The processes that have one raise a
      UsageError, which says which do not.
    UsageError: on all processes: they have different ones.
  """
  missing, sources = None, {}
  try:
    directory = datasets.ensure(data)
    sources = {
      split: builders.open_source(directory, split, data.split_list)
      for split in ('train', 'validation')
    }
  except builders.MissingDataset as error:
    missing = error
  found = coordination.gather('the data set', json.dumps(_describe(sources)))
  if missing is not None:
    raise missing
  if len(found) == 1:
    return sources
  described = list(map(json.loads, found))
  without = [process for process, x in enumerate(described) if not x]
  if without:
    raise errors.UsageError(
      f'{coordination.process_names(without)} has no data set: give all of '
      'them the same, see config.data.root.'
    )
  for process, other in enumerate(described):
    if other['digest'] != described[0]['digest']:
      raise errors.UsageError(
        f'{coordination.process_names([process])} has another data set in '
        f'{other["directory"]} ({other["digest"][:12]}) than process 0 in '
        f'{described[0]["directory"]} ({described[0]["digest"][:12]}): copy '
        'one of them to all hosts.'
      )
  return sources


def _describe(sources: dict[str, builders.ClipSource]) -> dict[str, Any]:
  """Returns where a data set is, and a hash of what batches are made from."""
  if not sources or jax.process_count() == 1:
    return {}  # Nothing, or nobody to compare it with.
  digest = hashlib.sha256()
  for source in sources.values():
    digest.update(source.info['fingerprint'].encode())
    # What windows are found in. Builds may differ in the order of records.
    index = source.index
    order = np.lexsort((index['start'], index['shot']))
    for name in ('id', 'shot', 'start', 'n', 'label', 'caption'):
      if name in index:
        digest.update(index[name][order].tobytes())
  return {
    'directory': sources['train'].directory,
    'digest': digest.hexdigest(),
  }
