"""Digests: the same on any mesh and device, and no change goes unseen."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from vdm.checkpoints import digests

SPECS = [
  (),
  ('fsdp',),
  (None, 'fsdp'),
  (None, 'fsdp', 'data'),
  (('data', 'fsdp'),),
]


def _reference(x):
  """The two sums by their definition, in Python integers."""
  words = x.reshape(-1).view(digests._word_type(x.dtype))

  def mix(h):
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16

  h = [mix((int(w) + 0x9E3779B9 * i) % 2**32) for i, w in enumerate(words)]
  second = sum(mix(value ^ 0x9E3779B9) for value in h) % 2**32
  return f'{sum(h) % 2**32:08x}{second:08x}'


def _on_device(x):
  """The digest as an accelerator's arrays get it."""
  shards = {
    tuple(axis.start or 0 for axis in shard.index): shard.device
    for shard in x.addressable_shards
  }
  sums = digests._device_sums(x, x.sharding).addressable_shards
  sums = {shard.device: np.asarray(shard.data) for shard in sums}
  return digests._text(sums[device] for device in shards.values())


@pytest.mark.parametrize(
  'dtype', ['bool', 'int8', 'uint16', 'bfloat16', 'float16', 'float32']
)
def test_all_meshes_give_what_the_definition_says(dtype):
  rng = np.random.default_rng(0)
  x = np.asarray(jnp.asarray(rng.integers(0, 2, (8, 4, 6)), dtype))
  expected = _reference(x)
  mesh = jax.make_mesh(
    (2, 4), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2
  )
  assert digests.digests({'x': x}) == {'x': expected}
  assert _on_device(jnp.asarray(x)) == expected
  for spec in SPECS:
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    assert digests.digests({'x': sharded}) == {'x': expected}, spec
    assert _on_device(sharded) == expected, spec


def test_eight_byte_values():
  host = np.random.default_rng(0).standard_normal((3, 4))
  expected = _reference(host)
  assert digests.digests({'x': host})['x'] == expected
  mesh = jax.make_mesh((2, 4), ('a', 'b'), axis_types=(AxisType.Auto,) * 2)
  with jax.enable_x64(True):
    spread = NamedSharding(mesh, PartitionSpec(None, 'b'))
    for x in (jnp.asarray(host), jax.device_put(host, spread)):
      assert x.dtype == np.float64
      assert _on_device(x) == digests.digests({'x': x})['x'] == expected


def test_empty_arrays_and_scalars():
  found = digests.digests(
    {'none': np.zeros((3, 0)), 'one': np.float32(2), 'jax': jnp.float32(2)}
  )
  assert found['none'] == '0' * 16
  assert found['one'] == found['jax'] == _reference(np.full(1, 2, np.float32))


def test_a_device_program_has_no_collectives():
  mesh = jax.make_mesh(
    (2, 4), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2
  )
  x = jax.device_put(
    np.ones((8, 4), np.float32), NamedSharding(mesh, PartitionSpec('fsdp'))
  )
  program = digests._device_sums.lower(x, x.sharding).compile()
  for name in ('all-reduce', 'all-gather', 'collective-permute', 'all-to-all'):
    assert name not in program.as_text()


def test_digests_see_flips_swaps_and_permutations():
  rng = np.random.default_rng(0)

  def digest(x):
    return digests.digests({'x': x})['x']

  # More than one block, and values that share their low bits: the sum of
  # values times their index misses exchanges of these.
  x = rng.integers(0, 256, 2**16 + 5).astype(np.float32)
  seen = {digest(x)}
  for changed in [x[::-1], np.roll(x, 1), np.roll(x, 2**15), np.sort(x), -x]:
    seen.add(digest(changed.copy()))
  for _ in range(20):
    i = int(rng.integers(len(x) - 2**15))
    y = x.copy()
    y[[i, i + 2**15]] = x[i] + 1, x[i + 2**15] - 1  # The sum stays.
    seen.add(digest(y))
  for index in range(0, len(x), 6007):
    for bit in range(32):
      y = x.copy()
      y.view(np.uint32)[index] ^= np.uint32(1 << bit)
      seen.add(digest(y))
  flips = 32 * len(range(0, len(x), 6007))
  assert len(seen) == 1 + 5 + 20 + flips
