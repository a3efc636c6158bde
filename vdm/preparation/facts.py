"""What is known of the data set that a run was trained on."""

import os
from typing import Any

from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.data import builders
from vdm.preparation import datasets


def describe(data: ConfigDict, fingerprint: str) -> tuple[dict[str, Any], str]:
  """Returns facts about a data set, and why there are no more, or ''.

  Args:
    data: `config.data`.
    fingerprint: of the data set that the run was trained on, '' if unknown.

  Returns:
    'name' and 'fingerprint'; if the data set is here also 'version',
    'resolution' ('width', too, unless square), 'frame_rate' and 'splits',
    {name: {'shots', 'frames'}}.
  """
  facts = {'name': data.name, 'fingerprint': fingerprint}
  try:
    directory = datasets.dataset_dir(data)
  except (OSError, ValueError, builders.BuildError) as error:
    # Its name depends on videos or lists that are not here.
    return facts, f'The data set is not here: {error}'
  if not builders.is_complete(directory):
    return facts, f'{directory} is not here: there are no counts.'
  splits = {
    name: builders.open_source(directory, name, data.split_list)
    for name in ('train', 'validation')
  }
  info = splits['train'].info
  if info['fingerprint'] != (fingerprint or info['fingerprint']):
    return facts, (
      f'{directory} is not what the run was trained on: there are no counts.'
    )
  facts |= {
    'fingerprint': info['fingerprint'],
    'version': os.path.basename(directory),
    **sizes.keys(sizes.of(info)),
    'frame_rate': info['frame_rate'],
    'splits': {
      name: {
        'shots': len(set(source.index['shot'].tolist())),
        'frames': int(source.index['n'].sum()),
      }
      for name, source in splits.items()
    },
  }
  return facts, ''
