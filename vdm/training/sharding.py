"""The mesh, and how the training state is sharded over it.

The mesh has two axes, ('data', 'fsdp'). A batch is split over both; the
parameters, their averages and the optimizer's moments are copies on 'data'
and split over 'fsdp' where they are large. Each device computes the gradient of
its own rows, of parameters that it gathers whole; then gradients are summed
over all devices, once a step, in float32 (`gather` and `add_up`, inside of
`jax.shard_map`). No activation goes from one device to another.

So the numbers depend on the mesh by the order of float additions alone and,
with `train.compute_dtype=bfloat16`, by the one rounding to it of what a device
adds up over its rows. Elsewhere the axes are Auto: the compiler inserts what it
needs.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

# A leaf with fewer values is a copy on every device: gathering it costs more
# than it saves.
MIN_SHARDED_SIZE = 2**16


def make_mesh(
  fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Returns a mesh of all devices, `fsdp` of them along the second axis.

  Raises:
    ValueError: `fsdp` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  if len(devices) % fsdp:
    raise ValueError(
      f'train.fsdp={fsdp} does not divide the {len(devices)} devices: use '
      'one of their divisors.'
    )
  shape, axes = (len(devices) // fsdp, fsdp), ('data', 'fsdp')
  types = (AxisType.Auto,) * 2
  ordered = by_process(devices)
  if ordered[0].process_index != ordered[-1].process_index:
    return jax.sharding.Mesh(np.array(ordered).reshape(shape), axes, types)
  # Of one process: neighbours in the mesh are neighbours in the hardware.
  return jax.make_mesh(shape, axes, axis_types=types, devices=devices)


def by_process(devices: Sequence[jax.Device]) -> list[jax.Device]:
  """Returns devices in the order of their processes.

  So that the rows that a process reads are its devices' rows of the global
  batch: hosts of a TPU slice may interleave in the order of `jax.devices()`.
  Processes are numbered slice by slice.
  """
  return sorted(devices, key=lambda x: (x.process_index, x.id))


def leaf_sharding(mesh: jax.sharding.Mesh, leaf: jax.Array) -> NamedSharding:
  """Splits the largest divisible axis of a large leaf over 'fsdp'."""
  spec = [None] * leaf.ndim
  size = mesh.shape['fsdp']
  if size > 1 and leaf.size >= MIN_SHARDED_SIZE:
    for axis in np.argsort(leaf.shape, kind='stable')[::-1]:
      if leaf.shape[axis] % size == 0:
        spec[axis] = 'fsdp'
        break
  return NamedSharding(mesh, PartitionSpec(*spec))


def tree_specs(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Returns the partition spec of every leaf of a tree, abstract or not."""
  return jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf).spec, tree)


def gather(tree: Any, specs: Any) -> Any:
  """Returns whole leaves, inside of `jax.shard_map`.

  Args:
    tree: of one device's parts.
    specs: of its leaves, see `tree_specs`.
  """

  def whole(x, spec):
    if 'fsdp' not in spec:
      return x
    return jax.lax.all_gather(x, 'fsdp', axis=spec.index('fsdp'), tiled=True)

  return jax.tree.map(whole, tree, specs)


def add_up(mesh: jax.sharding.Mesh, tree: Any, specs: Any) -> Any:
  """Returns one device's parts of sums over all devices.

  Inside of `jax.shard_map`, in the dtypes of the leaves.

  Args:
    mesh: all of its axes.
    tree: of one device's terms.
    specs: a prefix of the tree: of the sums, see `tree_specs`.
  """

  def add(spec, terms):
    if 'fsdp' not in spec:
      return jax.lax.psum(terms, mesh.axis_names)
    own = jax.lax.psum_scatter(
      terms, 'fsdp', scatter_dimension=spec.index('fsdp'), tiled=True
    )
    return jax.lax.psum(own, 'data')

  return jax.tree.map(
    add, specs, tree, is_leaf=lambda x: isinstance(x, PartitionSpec)
  )


def tree_sharding(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Returns the sharding of every leaf of a tree, abstract or not."""
  return jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf), tree)


def place(mesh: jax.sharding.Mesh, tree: Any) -> Any:
  """Returns a tree of arrays of the mesh, each where `leaf_sharding` has it."""

  def move(leaf):
    where = leaf_sharding(mesh, leaf)
    if leaf.sharding.is_equivalent_to(where, leaf.ndim):
      return leaf
    return jax.jit(lambda x: x, out_shardings=where)(leaf)

  return jax.tree.map(move, tree)


def abstract(tree: Any, sharding: Any) -> Any:
  """Returns a tree's ShapeDtypeStructs, with their shardings."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    sharding,
  )
