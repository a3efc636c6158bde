"""The folder of a cache: its plan first, then shards, what came out last.

`plan.json` says what a cache is to hold, and of what: a build that resumes has
the same. The file that is written last says that it is complete. A shard is a
file of arrays beside one of their checksums.
"""

from collections.abc import Callable
import json
import os
from typing import Any

import numpy as np

from vdm.common import errors
from vdm.common import files

PLAN = 'plan.json'


class CacheError(errors.UsageError):
  """A cache is missing or not the wanted one; says why in a sentence."""


def read_finished(directory: str, done: str, remedy: str) -> dict[str, Any]:
  """Returns what a complete cache holds.

  Args:
    directory: of the cache.
    done: name of the file that is written last.
    remedy: what it is and who makes it, as in 'text cache in {}: run ...'.

  Raises:
    CacheError: there is none.
  """
  path = os.path.join(directory, done)
  if not os.path.exists(path):
    unfinished = os.path.exists(os.path.join(directory, PLAN))
    raise CacheError(
      f'There is {"an unfinished" if unfinished else "no"} '
      f'{remedy.format(directory)}.'
    )
  with open(path) as file:
    return json.load(file)


def claim(
  directory: str,
  plan: dict[str, Any],
  what: str,
  key: str,
  difference: Callable[[dict[str, Any], dict[str, Any]], str],
) -> None:
  """Writes the plan, or checks that the unfinished cache there has the same.

  Args:
    directory: of the cache.
    plan: what it is to hold; JSON values.
    what: the cache is, as in 'a text cache'.
    key: of the configuration that names the folder.
    difference: (plan that is there, plan) -> what it holds instead; '' if both
      are alike.

  Raises:
    CacheError: the folder holds something else.
  """
  path = os.path.join(directory, PLAN)
  if not os.path.exists(path):
    if os.listdir(directory):
      raise CacheError(
        f'{directory} holds other files than {what}: give another folder as '
        f'{key}.'
      )
    files.write_json(path, plan)
    return
  with open(path) as file:
    found = json.load(file)
  if held := difference(found, plan):
    raise CacheError(
      f'{directory} holds {held}: remove it, or give another folder as {key}.'
    )


def shard_path(directory: str, number: int) -> str:
  """Returns the file of a shard's arrays."""
  return os.path.join(directory, f'{number:05d}.npy')


def sums_path(path: str) -> str:
  """Returns the file of the checksums beside a shard's arrays."""
  return path.removesuffix('.npy') + '.sums.npy'


def write_array(path: str, array: np.ndarray) -> None:
  """Writes an array atomically."""
  with files.replaced(path) as file:
    np.save(file, array, allow_pickle=False)
