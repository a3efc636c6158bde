"""Arrays of all processes of a run: to the devices and back.

A batch is split over all axes of the mesh, by rows. Anything else that every
process has whole is replicated on every device.
"""

from typing import Any

from etils.array_types import Array
import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vdm.multihost import coordination


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits rows over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding with a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def to_global(mesh: Mesh, batch: Any) -> Any:
  """Returns this process's rows of a batch as part of global arrays.

  Args:
    mesh: the global arrays are split over it.
    batch: tree of NumPy arrays [b ...], b rows for each process.
  """
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def split(mesh: Mesh, array: Array['b ...']) -> Array['b ...']:
  """Returns an array that every process has, its rows over all devices."""
  return _put(batch_sharding(mesh), array)


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Returns a tree of arrays that every process has, copied to every device."""
  sharding = replicated(mesh)
  return jax.tree.map(lambda x: _put(sharding, x), tree)


def _put(sharding, x):
  # `device_put` would first compare the processes' values over the network.
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def to_host(tree: Any) -> Any:
  """Returns a tree of global arrays as NumPy arrays, whole on every process."""

  def fetch(x):
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
      return np.asarray(x)
    if x.is_fully_replicated:
      return np.asarray(x.addressable_data(0))
    return multihost_utils.process_allgather(x, tiled=True)

  return jax.tree.map(fetch, tree)


def from_first(
  what: str,
  array: Array['...'] | None,
  shape: tuple[int, ...],
  dtype: Any = np.uint8,
) -> Array['...']:
  """Returns process 0's NumPy array on every process.

  Args:
    what: what the array is, for error messages.
    array: the array; None on the other processes.
    shape: its shape, known to all.
    dtype: its dtype.

  Raises:
    CoordinationError: a process did not call it in time; says which.
  """
  if jax.process_count() == 1:
    return array
  coordination.gather(what)  # Names missing processes; a collective would hang.
  array = np.zeros(shape, dtype) if array is None else array
  return np.asarray(multihost_utils.broadcast_one_to_all(array))
