"""How Orbax's manager is used to write, and what it leaves of a failed save."""

from collections.abc import Sequence
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import Array
import jax
import orbax.checkpoint as ocp

from vdm.common import buckets
from vdm.multihost import coordination

TMP = '.orbax-checkpoint-tmp'  # In names of unfinished saves, on a disk.
COMMITTED = 'commit_success.txt'  # In finished ones, in a bucket.


def one_copy(x: Array['...']) -> Array['...']:
  """Returns an array that is the same on all devices as that of one of them.

  Of copies Orbax writes a part each, which it cuts out by a program for every
  shape: compiling them takes longer than writing. Several processes do share
  the work.
  """
  if not isinstance(x, jax.Array) or not x.is_fully_addressable:
    return x
  return x.addressable_data(0) if x.is_fully_replicated else x


def unfinished(directory: epath.Path) -> list[epath.Path]:
  """Returns the folders of saves that have not ended, or never will."""
  entries = sorted(directory.iterdir()) if directory.exists() else []
  paths = [path for path in entries if path.is_dir()]
  if not buckets.is_remote(directory):
    return [path for path in paths if TMP in path.name]
  return [path for path in paths if not (path / COMMITTED).exists()]


def make(
  directory: epath.Path, policies: Sequence[Any]
) -> ocp.CheckpointManager:
  """Returns Orbax's manager, after removing saves that were interrupted.

  Args:
    directory: of the steps.
    policies: of what is kept; it deletes the rest, and nothing else.
  """
  # Not by Orbax, whose removal in the background may meet the next save.
  for path in unfinished(directory) if coordination.is_first() else ():
    logging.warning('%s is a save that was interrupted; it is removed.', path)
    path.rmtree(missing_ok=True)
  coordination.gather('removing interrupted saves')
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
        policies
      ),
      lightweight_initialize=True,  # A corrupt step must not stop us here.
      # Managers of two folders may save at the same time.
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        barrier_sync_key_prefix=directory.name
      ),
    ),
  )
