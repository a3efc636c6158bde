"""The values of --vary, read and checked as vdm.config.flag does."""

from collections.abc import Sequence
import itertools
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vdm.common import errors
from vdm.config import check
from vdm.config import flag
from vdm.config import serialize

BASELINE = 'baseline'  # The name of what no key was changed in.


class Variation(NamedTuple):
  """A key and the values that it takes.

  Attributes:
    key: as in 'optim.eps'.
    texts: of its values, as they were given.
    values: of the key's type.
  """

  key: str
  texts: list[str]
  values: list[Any]


def parse(given: Sequence[str], base: ConfigDict) -> list[Variation]:
  """Returns what --vary asks for.

  Args:
    given: 'KEY=VALUE,VALUE,...', one for each key; commas inside of
      parentheses belong to a value.
    base: the configuration that is varied.

  Raises:
    UsageError: a key does not exist, a value is none of it, or is given twice.
  """
  known, found = serialize.flatten(base), []
  for words in given:
    key, equals, rest = words.partition('=')
    key = key.removeprefix('config.')
    texts = split(rest)
    if not equals or not all(texts):
      raise errors.UsageError(
        f'--vary={words} is not KEY=VALUE,VALUE, as in '
        '--vary optim.eps=1e-8,1e-6.'
      )
    if key == 'seed':
      raise errors.UsageError('The seed is no key to vary: give --seeds.')
    values = [flag.read_value(key, text, known) for text in texts]
    for i, value in enumerate(values):
      if value in values[:i]:
        raise errors.UsageError(
          f'--vary={words} has {texts[i]} twice: name each value once.'
        )
    found.append(Variation(key, texts, values))
  keys = [variation.key for variation in found]
  if len(set(keys)) < len(keys):
    raise errors.UsageError(
      f'--vary names {max(keys, key=keys.count)} twice: give all values of a '
      'key at once.'
    )
  return found


def split(text: str) -> list[str]:
  """Splits at the commas that are not inside of parentheses."""
  parts, depth = [''], 0
  for character in text:
    depth += (character in '([') - (character in ')]')
    if character == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += character
  return [part.strip() for part in parts]


class Combination(NamedTuple):
  """What one configuration of a sweep differs in.

  Attributes:
    name: says so, and names a folder.
    changes: {key: value}, of every key that is varied.
  """

  name: str
  changes: dict[str, Any]


def combinations(
  variations: Sequence[Variation], *, grid: bool = False, alone: bool = False
) -> list[Combination]:
  """Returns every configuration, the baseline first.

  Args:
    variations: keys and their values, the baseline's first.
    grid: all combinations of several keys.
    alone: one key at a time, the others as in the baseline.

  Raises:
    UsageError: there is nothing to compare, or several keys with neither; both.
  """
  count = 1
  for variation in variations:
    count *= len(variation.values)
  if count < 2:
    raise errors.UsageError(
      'There is nothing to compare: give --vary KEY=VALUE,VALUE.'
    )
  each = [list(zip(v.texts, v.values)) for v in variations]
  first = [pairs[0] for pairs in each]
  singly = [
    [*first[:i], pair, *first[i + 1 :]]
    for i, pairs in enumerate(each)
    for pair in pairs[1:]
  ]
  if grid and alone:
    raise errors.UsageError('Pass one of --alone and --grid, not both.')
  if len(variations) > 1 and not (grid or alone):
    keys = ', '.join(variation.key for variation in variations)
    raise errors.UsageError(
      f'--vary names several keys ({keys}), and of what differs in several '
      'nobody knows which one helped: pass --alone for one at a time, '
      f'{len(singly) + 1} configurations, or --grid for all {count} '
      'combinations.'
    )
  rows = itertools.product(*each) if grid else [first, *singly]
  found = []
  for row in rows:
    texts = {
      v.key: text
      for v, (text, _), (usual, _) in zip(variations, row, first)
      if not alone or text != usual
    }
    changes = {v.key: value for v, (_, value) in zip(variations, row)}
    name = ','.join(f'{key}={text}' for key, text in texts.items())
    found.append(Combination(name or BASELINE, changes))
  return found


def apply(base: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
  """Returns a valid copy of a configuration with some values changed.

  Args:
    base: is not changed.
    changes: {key: value}.

  Raises:
    UsageError: the changed configuration is not valid.
  """
  config = base.copy_and_resolve_references().unlock()
  config.update_from_flattened_dict(changes)
  check.validate(config)
  return config


def folder_name(name: str) -> str:
  """Returns the name of a combination as one for a folder."""
  return re.sub(r'[^\w.,=()+-]', '_', name)
