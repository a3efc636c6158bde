"""Reads the files of one checkpoint, and detects that they are corrupt."""

from collections.abc import Mapping
import json
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from vdm.checkpoints import digests
from vdm.checkpoints import manifest
from vdm.common import buckets
from vdm.multihost import coordination


class CorruptCheckpoint(Exception):
  """Why a step cannot be used."""


class CheckpointMismatch(ValueError):
  """The checkpoint is valid and belongs to another model."""


def read_record(directory: epath.Path, step: int) -> manifest.Record:
  """Returns a step's record.

  Raises:
    CorruptCheckpoint: it is not what was saved, or an item is missing.
  """
  path, error = directory / str(step), None
  try:
    # Read as a file: the handlers of Orbax's versions differ about JSON.
    text = (path / 'meta' / 'metadata').read_text()
    record = manifest.unseal(json.loads(text))
    if record.step != step:
      error = f'is a copy of step {record.step}'
  except (OSError, ValueError, KeyError, TypeError) as caught:
    missing = isinstance(caught, FileNotFoundError)
    if buckets.is_remote(path) and isinstance(caught, OSError) and not missing:
      raise  # Of the network or of rights: the step may be valid.
    error = f'is incomplete or its meta is corrupt ({one_line(caught)})'
  _raise_together(f'the record of step {step}', error)
  for item, recorded in record.items.items():
    stored = any(0 not in shape for _, shape, _ in recorded.values())
    if stored and not (path / item).exists():
      raise CorruptCheckpoint(f'has lost its {item}')
  return record


def check_match(record: manifest.Record, abstract: Mapping[str, Any]) -> None:
  """Raises CheckpointMismatch unless a record matches what is to be restored.

  Args:
    record: of a step.
    abstract: {item: tree of jax.ShapeDtypeStruct or arrays; None matches any}.
  """
  for item, tree in abstract.items():
    if item not in record.items:
      raise CheckpointMismatch(
        f'The checkpoint has no {item!r}, only {sorted(record.items)}.'
      )
    if tree is None:
      continue
    leaves = manifest.named_leaves(tree)
    saved = {name: entry[:2] for name, entry in record.items[item].items()}
    wanted = {name: manifest.dtype_and_shape(x) for name, x in leaves.items()}
    absent = ['absent', '']
    for name in sorted(saved.keys() | wanted.keys()):
      there, here = saved.get(name, absent), wanted.get(name, absent)
      if there != here:
        raise CheckpointMismatch(
          f'The checkpoint is of another model: {name} of {item} is '
          f'{there[0]}{there[1]} in the checkpoint and {here[0]}{here[1]} in '
          'the model.'
        )


def read_item(
  directory: epath.Path, record: manifest.Record, item: str, tree: Any
) -> Any:
  """Returns the tree of one item, compared with the record.

  Args:
    directory: of the steps.
    record: of the step.
    item: its name.
    tree: of jax.ShapeDtypeStruct, whose shardings the leaves get; without a
      sharding they are NumPy arrays. None: nested dicts of NumPy arrays.

  Raises:
    CorruptCheckpoint: a leaf is not what was saved.
  """
  path, recorded = directory / str(record.step) / item, record.items[item]
  targets = manifest.named_leaves(tree) or dict.fromkeys(recorded)
  try:
    leaves = _read_arrays(path, recorded, targets)
    found = digests.digests(leaves)
    wrong = [
      name
      for name, (dtype, shape, digest) in recorded.items()
      if leaves[name].dtype != manifest.data_dtype(dtype)
      or [list(leaves[name].shape), found[name]] != [shape, digest]
    ]
    others = f'{wrong[0]} and {len(wrong) - 1} other leaves' if wrong else ''
    error = f'is not what was saved: {item} ({others})' if wrong else None
  except Exception as caught:  # Corrupt files cause any type of error.
    error = f'cannot be read: {item} ({one_line(caught)})'
  _raise_together(f'{item} of step {record.step}', error)
  for name, (dtype, *_) in recorded.items():
    if dtype.startswith(manifest.KEY):
      leaves[name] = jax.random.wrap_key_data(
        jnp.asarray(leaves[name]), impl=dtype.removeprefix(manifest.KEY)
      )
  if tree is None:
    return manifest.nested(leaves)
  structure = jax.tree.structure(tree)
  return jax.tree.unflatten(structure, [leaves[name] for name in targets])


def one_line(error: Exception) -> str:
  """Returns an error as one short line."""
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text[:200]}'


def _raise_together(what: str, error: str | None):
  """Raises CorruptCheckpoint on all processes if any has an error."""
  if not coordination.all_agree(what, error is None):
    raise CorruptCheckpoint(error or 'cannot be read by another process')


def _read_arrays(path, recorded, targets) -> dict[str, Any]:
  """Returns {name: array as stored}."""
  leaves, structs, args = {}, {}, {}
  for name, (dtype, shape, _) in recorded.items():
    sharding = getattr(targets[name], 'sharding', None)
    shape, dtype = tuple(shape), manifest.data_dtype(dtype)
    if 0 in shape:  # Recorded and not written.
      leaves[name] = np.zeros(shape, dtype)
      if sharding is not None:
        leaves[name] = jax.device_put(leaves[name], sharding)
      continue
    structs[name] = jax.ShapeDtypeStruct(shape, dtype)
    args[name] = ocp.RestoreArgs(restore_type=np.ndarray)
    if sharding is not None:
      args[name] = ocp.ArrayRestoreArgs(sharding=sharding, global_shape=shape)
  if structs:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      leaves |= reader.restore(
        path, args=ocp.args.PyTreeRestore(item=structs, restore_args=args)
      )
  return leaves
