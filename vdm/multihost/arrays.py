"""Arrays that all processes of a run share: to the devices and back.

A batch is split over all axes of the mesh. What every process has whole is
copied to every device.
"""

import functools

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vdm.multihost import coordination


def batch_sharding(mesh):
  """Rows over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh):
  """A copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def to_global(mesh, batch):
  """This host's rows of a batch, as global arrays split over the mesh."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def copies(mesh, tree):
  """Values that every host has, as global arrays with a copy everywhere.

  `device_put` would first compare the hosts' values over the network.
  """
  sharding = replicated(mesh)

  def put(x):
    if jax.process_count() == 1:
      return jax.device_put(x, sharding)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      data = put(jax.random.key_data(x))
      return jax.jit(
        lambda data: jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
      )(data)
    return jax.make_array_from_process_local_data(sharding, np.asarray(x))

  return jax.tree.map(put, tree)


def split(mesh, array):
  """A NumPy array that every host has whole, its rows over all devices."""
  return jax.make_array_from_callback(
    array.shape, batch_sharding(mesh), lambda index: array[index]
  )


def to_host(tree):
  """Global arrays as NumPy arrays, whole on every host."""

  def fetch(x):
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
      return np.asarray(x)
    if not x.is_fully_replicated:
      x = _gather(replicated(x.sharding.mesh))(x)
    return np.asarray(x.addressable_data(0))

  return jax.tree.map(fetch, tree)


@functools.cache
def _gather(sharding):
  """Returns the jitted function that copies an array everywhere."""
  return jax.jit(lambda x: x, out_shardings=sharding)


def from_first(what, array, shape, dtype=np.uint8):
  """The first process's NumPy array of a known shape, on every process.

  Args:
    what: for a person, what this is about.
    array: it; None on the other processes.
    shape: of it.
    dtype: of it.

  Raises:
    CoordinationError: some process did not come in time; says which.
  """
  if jax.process_count() == 1:
    return array
  from jax.experimental import multihost_utils

  coordination.gather(what)  # Names who is missing; a collective would hang.
  array = np.zeros(shape, dtype) if array is None else array
  return np.asarray(multihost_utils.broadcast_one_to_all(array))
