"""Reads the files of one checkpoint, and tells when they are damaged."""

from collections.abc import Mapping
import json
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from vdm.checkpoints import manifest
from vdm.multihost import coordination


class Damage(Exception):
  """Why a step cannot be used."""


def read_record(directory: epath.Path, step: int) -> manifest.Record:
  """Returns a step's record.

  Raises:
    Damage: it is not what was saved, or an item is missing.
  """
  path = directory / str(step)
  error = None
  try:
    # Read as a file: the handlers of Orbax's versions differ about JSON.
    text = (path / 'meta' / 'metadata').read_text()
    record = manifest.unseal(json.loads(text))
    if record.step != step:
      error = f'is a copy of step {record.step}'
  except (OSError, ValueError, KeyError, TypeError) as caught:
    error = f'is incomplete or its meta is damaged ({line(caught)})'
  if not coordination.all_agree(f'the record of step {step}', error is None):
    raise Damage(error or 'cannot be read by another process')
  for item, named in record.items.items():
    stored = any(0 not in shape for _, shape, _ in named.values())
    if stored and not (path / item).exists():
      raise Damage(f'has lost its {item}')
  return record


def read_item(
  directory: epath.Path,
  record: manifest.Record,
  item: str,
  targets: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the leaves of one item, compared with their record.

  Args:
    directory: of the steps.
    record: of the step.
    item: its name.
    targets: {name: jax.ShapeDtypeStruct, whose sharding the leaf gets; None or
      one without a sharding: a NumPy array}.

  Raises:
    Damage: a leaf is not what was saved.
  """
  recorded = record.items[item]
  shardings = {n: getattr(t, 'sharding', None) for n, t in targets.items()}
  stored = [n for n in targets if 0 not in recorded[n][1]]
  path = directory / str(record.step) / item
  leaves, error = {}, None
  if stored:
    try:
      leaves = _read_arrays(
        path, {n: (recorded[n], shardings[n]) for n in stored}
      )
      error = manifest.first_difference(leaves, recorded)
    except Exception as caught:  # Damage reaches us as any type of error.
      error = f'cannot be read: {item} ({line(caught)})'
    else:
      error = error and f'is not what was saved: {item} ({error})'
  if not coordination.all_agree(f'{item} of step {record.step}', error is None):
    raise Damage(error or f'cannot be read by another process: {item}')
  for name, (dtype, shape, _) in recorded.items():
    sharding = shardings[name]
    if name not in leaves:
      leaves[name] = np.zeros(shape, manifest.data_type(dtype))
      if sharding is not None:
        leaves[name] = jax.device_put(leaves[name], sharding)
    if dtype.startswith(manifest.KEY):
      leaves[name] = jax.random.wrap_key_data(
        jnp.asarray(leaves[name]), impl=dtype.removeprefix(manifest.KEY)
      )
  return {name: leaves[name] for name in targets}


def line(error: Exception) -> str:
  """Returns an error as one short line."""
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text[:200]}'


def _read_arrays(path, wanted) -> dict[str, Any]:
  """Reads {name: array} of {name: ([dtype, shape, digest], sharding)}."""
  item, args = {}, {}
  for name, ((dtype, shape, _), sharding) in wanted.items():
    item[name] = jax.ShapeDtypeStruct(tuple(shape), manifest.data_type(dtype))
    if sharding is None:
      args[name] = ocp.RestoreArgs(restore_type=np.ndarray)
    else:
      args[name] = ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=tuple(shape)
      )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    return reader.restore(
      path, args=ocp.args.PyTreeRestore(item=item, restore_args=args)
    )
