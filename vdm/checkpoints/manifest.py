"""What a checkpoint records about its leaves, and comparisons with it.

A leaf's name joins the keys on the way to it with '/', each escaped as in a
JSON pointer (RFC 6901: '~' is written '~0' and '/' is '~1'), so that a key may
hold a '/' itself and two leaves never share a name. Its dtype is NumPy's name,
or 'key:<implementation>' for random keys, which are stored as their data.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdm.checkpoints import digests

KEY = 'key:'


class CheckpointMismatch(ValueError):
  """A sound checkpoint that belongs to another model."""


@dataclasses.dataclass(frozen=True)
class Record:
  """What the `meta` item of a step holds.

  Attributes:
    step: number of the step.
    meta: what the caller gave, JSON values.
    items: {item: {name: [dtype, shape, digest]}}.
  """

  step: int
  meta: dict[str, Any]
  items: dict[str, dict[str, list]]


def seal(record: Record) -> dict[str, Any]:
  """Returns a record as JSON values under their sha256."""
  content = dataclasses.asdict(record)
  return {'content': content, 'sha256': _sha256(content)}


def unseal(sealed: Any) -> Record:
  """Returns what `seal` was given.

  Raises:
    ValueError, KeyError, TypeError: it has been changed.
  """
  if sealed['sha256'] != _sha256(sealed['content']):
    raise ValueError('its sha256 is wrong')
  return Record(**sealed['content'])


def named_leaves(tree: Any) -> dict[str, Any]:
  """Returns {name: leaf} in the order of `jax.tree.leaves`.

  Raises:
    TypeError: a dict of the tree has a key that is not a non-empty str.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(map(_key_name, path)) or '~': x for path, x in leaves}


def nested(leaves: Mapping[str, Any]) -> Any:
  """Returns {name: leaf} as nested dicts, with every key a str."""
  if set(leaves) == {'~'}:
    return leaves['~']
  tree = {}
  for name, leaf in leaves.items():
    keys = [k.replace('~1', '/').replace('~0', '~') for k in name.split('/')]
    node = tree
    for key in keys[:-1]:
      node = node.setdefault(key, {})
    node[keys[-1]] = leaf
  return tree


def storable(tree: Any) -> dict[str, tuple[str, Any]]:
  """Returns {name: (recorded dtype, array)} of a tree that is to be saved."""
  leaves = {}
  for name, x in named_leaves(tree).items():
    if not isinstance(x, jax.Array):
      x = np.asarray(x)
    dtype = type_name(x)
    leaves[name] = (
      dtype,
      jax.random.key_data(x) if dtype.startswith(KEY) else x,
    )
  return leaves


def describe(leaves: Mapping[str, tuple[str, Any]]) -> dict[str, list]:
  """Returns {name: [dtype, shape, digest]} of what `storable` returned."""
  found = digests.digests({name: x for name, (_, x) in leaves.items()})
  return {
    name: [dtype, list(x.shape), found[name]]
    for name, (dtype, x) in leaves.items()
  }


def type_name(x: Any) -> str:
  """Returns the recorded dtype of an array or a ShapeDtypeStruct."""
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    names = []  # `key_impl` takes keys, traced ones too, but no structs.
    jax.eval_shape(lambda key: names.append(jax.random.key_impl(key)), x)
    return f'{KEY}{names[0]}'
  return np.dtype(x.dtype).name


def data_type(name: str) -> np.dtype:
  """Returns the dtype of the data stored for a recorded dtype."""
  return jnp.dtype('uint32' if name.startswith(KEY) else name)


def match(
  record: Record, abstract: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """Returns {item: {name: target}}.

  Raises:
    CheckpointMismatch: it is not what the record has; names the first leaf.
  """
  targets = {}
  for item, tree in abstract.items():
    targets[item] = named_leaves(tree)
    if item not in record.items:
      raise CheckpointMismatch(
        f'The checkpoint has no {item!r}, only {sorted(record.items)}.'
      )
    saved = record.items[item]
    for name in sorted(saved.keys() | targets[item].keys()):
      here, there = 'absent', 'absent'
      if name in targets[item]:
        x = targets[item][name]
        shape = tuple(x.shape)
        if type_name(x).startswith(KEY):
          shape = jax.eval_shape(jax.random.key_data, x).shape
        here = f'{type_name(x)}{list(shape)}'
      if name in saved:
        there = f'{saved[name][0]}{list(saved[name][1])}'
      if here != there:
        raise CheckpointMismatch(
          f'The checkpoint is of another model: {name} of {item} is {there}'
          f' there and {here} here.'
        )
  return targets


def rebuilder(abstract: Mapping[str, Any]):
  """Returns a function from {item: {name: leaf}} to trees like `abstract`."""

  def rebuild(items):
    return {
      item: jax.tree.unflatten(
        jax.tree.structure(tree), list(items[item].values())
      )
      for item, tree in abstract.items()
    }

  return rebuild


def first_difference(leaves, record) -> str | None:
  """Returns what is wrong with the first leaf that is not as recorded."""
  for name, x in leaves.items():
    dtype, shape, _ = record[name]
    if x.dtype != data_type(dtype) or list(x.shape) != shape:
      return f'{name} is {x.dtype}{list(x.shape)}'
  found = digests.digests(leaves)
  wrong = [name for name in leaves if found[name] != record[name][2]]
  if not wrong:
    return None
  return f'digest of {wrong[0]} and of {len(wrong) - 1} other leaves'


def _key_name(key: Any) -> str:
  """Returns one key of a path in a tree, escaped."""
  match key:
    case jax.tree_util.DictKey(key=str(text)) if text:
      return text.replace('~', '~0').replace('/', '~1')
    case jax.tree_util.GetAttrKey(name=text):
      return text
    case jax.tree_util.SequenceKey(idx=index):
      return str(index)
  raise TypeError(
    f'A checkpoint takes trees whose dict keys are non-empty str, got {key}.'
  )


def _sha256(content: Any) -> str:
  text = json.dumps(content, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()
