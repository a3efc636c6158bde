"""Configurations as flat keys, as a hash and as the file `config.json`.

The file is plain JSON. A configuration contains no lists, so JSON's lists are
its tuples.
"""

from collections.abc import Mapping, Sequence
import hashlib
import json
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vdm.common import errors
from vdm.common import files
from vdm.common import trees


def to_dict(config: ConfigDict) -> dict[str, Any]:
  """Returns `config` as nested dicts of plain values, references resolved."""
  return config.copy_and_resolve_references().to_dict()


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'model.widths': (32, 64), ...}, sorted by key."""
  tree = to_dict(config) if isinstance(config, ConfigDict) else config
  leaves = trees.flatten(tree)
  return {path.replace('/', '.'): value for path, value in leaves.items()}


def unflatten(values: Mapping[str, Any]) -> ConfigDict:
  """Returns the configuration of {'model.widths': (32, 64), ...}."""
  leaves = {key.replace('.', '/'): value for key, value in values.items()}
  return ConfigDict(trees.unflatten(leaves))


def config_hash(config: ConfigDict) -> str:
  """Returns the sha256 of the values, in hexadecimal.

  It depends neither on the order in which keys were set nor on the versions
  of Python and libraries.
  """
  text = json.dumps(
    to_dict(config), sort_keys=True, separators=(',', ':'), allow_nan=False
  )
  return hashlib.sha256(text.encode()).hexdigest()


def diff(old: ConfigDict, new: ConfigDict) -> list[str]:
  """Returns a line 'key: old -> new' for each key that differs."""
  old, new = flatten(old), flatten(new)
  absent = '(no such key)'

  def show(flat, key):
    return repr(flat[key]) if key in flat else absent

  return [
    f'{key}: {show(old, key)} -> {show(new, key)}'
    for key in sorted(old.keys() | new.keys())
    if show(old, key) != show(new, key)
  ]


def save(
  config: ConfigDict, path: epath.PathLike, label_names: Sequence[str] = ()
) -> None:
  """Writes `config.json`, whole or not at all.

  Args:
    config: the run's, with all overrides.
    path: of the file, local or on an object store.
    label_names: of the classes, in the order of their numbers.
  """
  files.write_json(path, to_content(config, label_names), allow_nan=False)


def to_content(
  config: ConfigDict, label_names: Sequence[str] = ()
) -> dict[str, Any]:
  """Returns what `save` writes, as JSON values."""
  return {
    'hash': config_hash(config),
    'label_names': list(label_names),
    'config': to_dict(config),
  }


def load(path: epath.PathLike) -> ConfigDict:
  """Returns the configuration that `save` wrote.

  Raises:
    UsageError: the file is not as `save` wrote it.
  """
  return from_content(_read(path), path)


def from_content(content: Any, path: epath.PathLike) -> ConfigDict:
  """Returns the configuration of what `to_content` returned.

  Args:
    content: its JSON values.
    path: of the file they are from, for errors.

  Raises:
    UsageError: they are not as `to_content` returned them.
  """
  _check(content, path)
  try:
    config = ConfigDict(_lists_to_tuples(content['config']))
    found = config_hash(config)
  # Whatever a file that something else wrote may lead to.
  except (ValueError, TypeError, AttributeError, RecursionError) as error:
    raise _foreign(path) from error
  if found != content['hash']:
    raise errors.UsageError(
      f'{path} was changed after the run wrote it: restore it, or start a '
      'new run.'
    )
  return config


def load_label_names(path: epath.PathLike) -> list[str]:
  """Returns the class names that `save` wrote; [] if there are none."""
  content = _read(path)
  _check(content, path)
  return content['label_names']


def _read(path: epath.PathLike) -> Any:
  try:
    return json.loads(epath.Path(path).read_text())
  except RecursionError as error:
    raise _foreign(path) from error
  except ValueError as error:  # Also bytes that are no text.
    raise errors.UsageError(f'{path} is not valid JSON: {error}.') from error


def _check(content: Any, path: epath.PathLike) -> None:
  """Raises a UsageError unless values have the parts of `to_content`."""
  parts = {'hash': str, 'label_names': list, 'config': dict}
  if not isinstance(content, dict) or not all(
    isinstance(content.get(name), kind) for name, kind in parts.items()
  ):
    raise _foreign(path)
  if not all(isinstance(name, str) for name in content['label_names']):
    raise _foreign(path)


def _foreign(path: epath.PathLike) -> errors.UsageError:
  return errors.UsageError(
    f'{path} is not the config.json of a run: restore it, or name another '
    '--workdir.'
  )


def _lists_to_tuples(node: Any) -> Any:
  if isinstance(node, dict):
    return {key: _lists_to_tuples(value) for key, value in node.items()}
  if isinstance(node, list):
    return tuple(_lists_to_tuples(value) for value in node)
  return node
