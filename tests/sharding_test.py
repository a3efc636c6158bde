"""Where arrays live, on eight virtual devices."""

import types

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from vdm.multihost import arrays
from vdm.training import sharding

BIG = sharding.MIN_SHARDED_SIZE


def struct(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_mesh_has_all_devices():
  mesh = sharding.make_mesh(2)
  assert dict(mesh.shape) == {'data': 4, 'fsdp': 2}
  assert mesh.size == jax.device_count() == 8
  one = sharding.make_mesh(devices=jax.devices()[:1])
  assert dict(one.shape) == {'data': 1, 'fsdp': 1}
  with pytest.raises(ValueError, match='fsdp=3 does not divide the 8 devices'):
    sharding.make_mesh(3)


def test_devices_of_hosts_that_interleave():
  """A 4 x 4 slice: each host has a square of four chips; then two slices."""

  def device(number, slice_index=0):
    y, x = divmod(number % 16, 4)
    host = 4 * slice_index + 2 * (y // 2) + x // 2
    return types.SimpleNamespace(id=number, process_index=host)

  chips = [device(n) for n in range(16)]
  assert [x.process_index for x in chips[:4]] == [0, 0, 1, 1]
  found = sharding.by_process(chips)
  assert [x.process_index for x in found] == np.repeat(range(4), 4).tolist()
  assert [x.id for x in found[:4]] == [0, 1, 4, 5]
  both = [device(n + 16, 1) for n in range(16)] + chips
  hosts = [x.process_index for x in sharding.by_process(both)]
  assert hosts == np.repeat(range(8), 4).tolist()


@pytest.mark.parametrize(
  'shape, spec',
  [
    ((), ()),
    ((4,), (None,)),  # Small leaves are copies.
    ((3, 3, 8, BIG // 72 // 4 * 4), (None, None, None, None)),
    ((3, 3, BIG // 64, 64), (None, None, 'fsdp', None)),  # The largest axis.
    ((BIG // 4 + 1, 8), (None, 'fsdp')),  # That divides.
    ((BIG + 1, 1), (None, None)),  # None does.
  ],
)
def test_the_largest_divisible_axis_of_a_large_leaf_is_split(shape, spec):
  found = sharding.leaf_sharding(sharding.make_mesh(4), struct(*shape))
  assert tuple(found.spec) == spec
  alone = sharding.leaf_sharding(sharding.make_mesh(1), struct(*shape))
  assert alone.is_fully_replicated


def test_a_batch_is_split_over_both_axes_and_comes_back_whole():
  mesh = sharding.make_mesh(4)
  batch = {'video': np.arange(48).reshape(16, 3), 'label': np.arange(16)}
  rows = arrays.to_global(mesh, batch)
  assert rows['video'].sharding.spec == PartitionSpec(('data', 'fsdp'))
  assert {s.data.shape for s in rows['video'].addressable_shards} == {(2, 3)}
  jax.tree.map(np.testing.assert_array_equal, arrays.to_host(rows), batch)


def test_abstract_arrays_carry_shapes_dtypes_and_shardings():
  mesh = sharding.make_mesh(2)
  tree = {'a': struct(BIG, 2), 'b': jax.ShapeDtypeStruct((), jnp.int32)}
  shardings = sharding.tree_sharding(mesh, tree)
  found = sharding.abstract(tree, shardings)
  assert found['a'].shape == (BIG, 2) and found['b'].dtype == jnp.int32
  assert found['a'].sharding.spec == PartitionSpec('fsdp', None)
  assert found['b'].sharding.is_fully_replicated
  array = jax.device_put(np.zeros((BIG, 2), np.float32), found['a'].sharding)
  assert {s.data.shape for s in array.addressable_shards} == {(BIG // 2, 2)}
