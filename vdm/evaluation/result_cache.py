"""Caches arrays on disk under a key of what they depend on.

A key is a dict of JSON values. Its arrays are in `<folder>/<digest>.npz`,
together with the key itself. Corrupt files and files of other keys are ignored.
"""

from collections.abc import Callable
import hashlib
import io
import json
from typing import Any
import zipfile

from etils import epath
import jax
import numpy as np

from vdm.common import files
from vdm.multihost import coordination

FOLDER = 'kept'  # Of a card's cache, in the folder of the card.


def fingerprint(tree: Any) -> str:
  """Returns 16 hex digits of the values of a tree of arrays."""
  total = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.ascontiguousarray(leaf)
    name = f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'
    total.update(name.encode())
    total.update(array)
  return total.hexdigest()[:16]


def get(
  folder: epath.PathLike,
  key: dict[str, Any],
  compute: Callable[..., dict[str, np.ndarray] | None],
) -> dict[str, np.ndarray] | None:
  """Returns the arrays of a key, from the cache or computed.

  Every process calls it. The first one reads and writes; the others get None
  where the arrays are cached, else what they computed.

  Args:
    folder: of the cache.
    key: what the arrays depend on.
    compute: () -> {name: array}, called on every process; only the first one
      needs to return arrays.
  """
  text = json.dumps(key, sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()[:16]
  path = epath.Path(folder) / f'{digest}.npz'
  cached = read(path, key) if coordination.is_first() else None
  if coordination.first_says(str(path), cached is not None):
    return cached
  arrays = compute()
  if coordination.is_first():
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_npz(path, {'key': np.array(text), **arrays})
  return arrays


def read(path: epath.Path, key: dict[str, Any]) -> dict[str, np.ndarray] | None:
  """Returns the arrays of a file; None unless they are those of the key."""
  if not path.exists():
    return None
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    text = str(arrays.pop('key'))
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None
  return arrays if json.loads(text) == json.loads(json.dumps(key)) else None
