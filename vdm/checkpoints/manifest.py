"""The record of a checkpoint: the name, dtype, shape and digest of every leaf.

A leaf's name joins the keys on the way to it with '/', each escaped as in a
JSON pointer (RFC 6901: '~' is written '~0' and '/' is '~1'), so that a key may
contain a '/' itself and two leaves never share a name. `common.trees` does not
escape, takes dicts only and imports no jax: its paths are for parameters. The
dtype is NumPy's name, or 'key:<implementation>' for random keys, which are
stored as their data.
"""

from collections.abc import Mapping
import hashlib
import json
from typing import Any, NamedTuple

from etils.array_types import Array
import jax
import jax.numpy as jnp
import numpy as np

from vdm.checkpoints import digests
from vdm.common import trees

KEY = 'key:'


class Record(NamedTuple):
  """Content of the `meta` item of a step.

  Attributes:
    step: number of the step.
    meta: the caller's JSON values.
    items: {item: {name: [dtype, shape, digest]}}.
  """

  step: int
  meta: dict[str, Any]
  items: dict[str, dict[str, list]]


def seal(record: Record) -> dict[str, Any]:
  """Returns a record as JSON values under their sha256."""
  content = record._asdict()
  return {'content': content, 'sha256': _sha256(content)}


def unseal(sealed: Any) -> Record:
  """Returns the record that `seal` was given.

  Raises:
    ValueError, KeyError, TypeError: it has been changed.
  """
  if sealed['sha256'] != _sha256(sealed['content']):
    raise ValueError('its sha256 is wrong')
  return Record(**sealed['content'])


def stored_arrays(tree: Any) -> dict[str, Array['...']]:
  """Returns {name: array} of a tree as it is stored: random keys as data."""
  arrays = {}
  for name, x in named_leaves(tree).items():
    x = jax.random.key_data(x) if _is_key(x) else x
    arrays[name] = x if isinstance(x, jax.Array) else np.asarray(x)
  return arrays


def describe(tree: Any) -> dict[str, list]:
  """Returns {name: [dtype, shape, digest]} of a tree."""
  leaves, found = named_leaves(tree), digests.digests(stored_arrays(tree))
  return {n: [*dtype_and_shape(x), found[n]] for n, x in leaves.items()}


def dtype_and_shape(x: Array['...'] | jax.ShapeDtypeStruct) -> list:
  """Returns [dtype, shape] as they are recorded."""
  if not _is_key(x):
    return [np.dtype(x.dtype).name, list(x.shape)]
  implementation = jax.random.key_impl(jnp.empty((), x.dtype))
  shape = jax.eval_shape(jax.random.key_data, x).shape
  return [f'{KEY}{implementation}', list(shape)]


def data_dtype(name: str) -> np.dtype:
  """Returns the dtype of the data stored for a recorded dtype."""
  return jnp.dtype('uint32' if name.startswith(KEY) else name)


def named_leaves(tree: Any) -> dict[str, Any]:
  """Returns {name: leaf} in the order of `jax.tree.leaves`.

  Raises:
    TypeError: a dict of the tree has a key that is not a non-empty str.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {'/'.join(map(_key_name, path)) or '~': x for path, x in leaves}


def nested(leaves: Mapping[str, Any]) -> Any:
  """Returns {name: leaf} as nested dicts, with every key a str."""

  def unescape(tree):
    if not isinstance(tree, dict):
      return tree
    names = {key: key.replace('~1', '/').replace('~0', '~') for key in tree}
    return {names[key]: unescape(value) for key, value in tree.items()}

  # The only leaf of a tree that is no dict has no keys on the way to it.
  return leaves['~'] if '~' in leaves else unescape(trees.unflatten(leaves))


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


def _is_key(x) -> bool:
  return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _sha256(content: Any) -> str:
  text = json.dumps(content, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()
