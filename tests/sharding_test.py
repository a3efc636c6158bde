"""Where arrays live, on eight virtual devices."""

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
