"""Keeps arrays that took long to compute, under what they depend on.

A key is a dict of JSON values. Its arrays lie in `<folder>/<digest>.npz`, with
the key itself inside; a file that is damaged or of another key is no file.
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

from vdm.multihost import coordination


def digest(key: dict[str, Any]) -> str:
  """Returns 16 hex digits of a key."""
  text = json.dumps(key, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


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
  compute: Callable[[], dict[str, np.ndarray] | None],
) -> dict[str, np.ndarray] | None:
  """Returns the arrays of a key, computed unless they are kept.

  All processes call it; the first one reads and writes, and the arrays are for
  it alone: the others get None where they are kept.

  Args:
    folder: where to keep them.
    key: what they depend on.
    compute: () -> {name: array}, on every process; None on all but the first.
  """
  path = epath.Path(folder) / f'{digest(key)}.npz'
  first = jax.process_index() == 0
  found = read(path, key) if first else None
  if coordination.first_says(str(path), found is not None):
    return found
  arrays = compute()
  if first:
    write(path, key, arrays)
  return arrays


def read(path: epath.Path, key: dict[str, Any]) -> dict[str, np.ndarray] | None:
  """Returns the arrays of a file; None where they are not those of the key."""
  if not path.exists():
    return None
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    text = str(arrays.pop('key'))
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None
  return arrays if json.loads(text) == json.loads(json.dumps(key)) else None


def write(
  path: epath.Path, key: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
  """Writes a file that is at no moment seen half written."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.parent / f'{path.name}.partial'
  with partial.open('wb') as file:
    np.savez(file, key=np.array(json.dumps(key, sort_keys=True)), **arrays)
  partial.replace(path)
