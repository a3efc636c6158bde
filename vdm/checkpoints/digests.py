"""Digests of arrays that see every flipped bit and do not depend on the mesh.

A digest is 64 bits as hexadecimal text. With w_i the leaf's values as unsigned
words in row-major order, C = 0x9E3779B9, and mix the finaliser of MurmurHash3
(a bijection of 32 bits), all modulo 2^32:

  h_i = mix(w_i + C i),   digest = (sum_i h_i,  sum_i mix(h_i xor C)).

One changed word changes exactly one h_i, hence the first sum: a flipped bit is
always seen. The index inside the non-linear mix makes exchanged or permuted
values change it too, up to chance of the order of 2^-64. A sum over elements
can be taken shard by shard: nothing is gathered, and the result does not
depend on the mesh.

No device talks to another for it: processes tell each other the sums of their
shards. Hundreds of small collectives dispatched at once have been seen to wait
for each other for ever, two processes with four CPU devices each.
"""

from collections.abc import Iterable, Mapping
import functools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vdm.multihost import coordination

_INDEX = 0x9E3779B9
_MULTIPLIERS = (0x85EBCA6B, 0xC2B2AE35)
# Words that NumPy mixes at once: small enough to stay in a core's cache.
_CHUNK = 2**16


def digests(leaves: Mapping[str, Any]) -> dict[str, str]:
  """Returns {name: digest} of {name: jax.Array or np.ndarray}.

  Arrays in host memory are read there, which compiles nothing; others are
  digested where they are, by one small program for each shape. Every process
  of a run calls it with the same names. Of a shard that several processes have
  copies of, each digests its own, and takes the sums of shards that it has not
  from the first process that has them.

  Raises:
    TypeError: a leaf's dtype is none of bool, (u)int and float of 1 to 8 bytes.
  """
  # {name: {place of a shard: its sums}}
  parts = jax.device_get({name: _parts(x) for name, x in leaves.items()})
  parts = {
    name: {place: tuple(map(int, sums)) for place, sums in of_leaf.items()}
    for name, of_leaf in parts.items()
  }
  spread = [
    name
    for name, x in leaves.items()
    if isinstance(x, jax.Array)
    and not (x.is_fully_addressable or x.is_fully_replicated)
  ]
  if spread:
    said = coordination.gather(
      'digests', json.dumps([list(parts[name].items()) for name in spread])
    )
    for text in said:
      for name, shards in zip(spread, json.loads(text), strict=True):
        for place, sums in shards:
          parts[name].setdefault(tuple(place), tuple(sums))
  return {name: _text(of_leaf.values()) for name, of_leaf in parts.items()}


def _text(sums: Iterable[tuple[int, int]]) -> str:
  """Returns the digest that shards add up to."""
  return ''.join(f'{sum(lane) % 2**32:08x}' for lane in zip(*sums))


def _parts(x: Any) -> dict[tuple[int, ...], Any]:
  """Returns {first index of a shard along each axis: its two sums}.

  Of shards that this process has several copies of, one is digested.
  """
  if not isinstance(x, jax.Array):
    return {(0,) * np.ndim(x): _host_sums(np.asarray(x))}
  shards = {}
  for shard in x.addressable_shards:
    place = tuple(axis.start or 0 for axis in shard.index)
    shards.setdefault(place, shard)
  if all(s.device.platform == 'cpu' for s in shards.values()):
    return {
      place: _host_sums(np.asarray(shard.data), x.shape, place)
      for place, shard in shards.items()
    }
  sums = _device_sums(x)
  return {place: sums[shard.device] for place, shard in shards.items()}


def _word_type(dtype: Any) -> np.dtype:
  """Returns the unsigned type whose words stand for values of `dtype`."""
  dtype = np.dtype(dtype)
  number = dtype == np.bool_ or (
    jnp.issubdtype(dtype, jnp.number)
    and not jnp.issubdtype(dtype, jnp.complexfloating)
  )
  if not number or dtype.name.endswith(('int2', 'int4', 'float4_e2m1fn')):
    raise TypeError(f'A checkpoint takes no arrays of dtype {dtype}.')
  return np.dtype(f'uint{8 * min(dtype.itemsize, 4)}')


def _mix(h, multiply, xorshift):
  """MurmurHash3's finaliser on 32-bit words."""
  h = xorshift(h, 16)
  h = xorshift(multiply(h, _MULTIPLIERS[0]), 13)
  return xorshift(multiply(h, _MULTIPLIERS[1]), 16)


def _strides(shape) -> list[int]:
  """Returns what one step along each axis adds to the row-major index."""
  return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _host_sums(x: np.ndarray, shape=None, place=None) -> tuple[int, int]:
  """Returns the two sums of a shard in host memory.

  Args:
    x: the shard.
    shape: of the whole array; None: x is all of it.
    place: first index of the shard along each axis.
  """

  def multiply(h, factor):
    h *= np.uint32(factor)
    return h

  def xorshift(h, bits):
    h ^= h >> np.uint32(bits)
    return h

  words = np.ascontiguousarray(x).reshape(*x.shape, 1).view(_word_type(x.dtype))
  last = words.shape[-1]  # 2 where values have 8 bytes.
  shape = (*(x.shape if shape is None else shape), last)
  place = (*((0,) * x.ndim if place is None else place), 0)
  # From some axis on the shard is whole: along it and these it is one run of
  # indices, `row` has the first one of each run.
  axis = words.ndim - 1
  while axis and words.shape[axis] == shape[axis]:
    axis -= 1
  strides, row = _strides(shape), np.zeros(1, np.uint64)
  for size, start, stride in list(zip(words.shape, place, strides))[:axis]:
    along = (start + np.arange(size, dtype=np.uint64)) * np.uint64(stride)
    row = (row[:, None] + along).reshape(-1)
  row += np.uint64(place[axis] * strides[axis])
  row = ((row * np.uint64(_INDEX)) % np.uint64(2**32)).astype(np.uint32)
  words = words.reshape(row.size, -1)

  columns = max(1, min(words.shape[1], _CHUNK))
  rows = max(1, _CHUNK // columns)
  index = np.arange(columns, dtype=np.uint32) * np.uint32(_INDEX)
  first, second = 0, 0
  for r in range(0, words.shape[0], rows):
    for c in range(0, words.shape[1], columns):
      chunk = words[r : r + rows, c : c + columns]
      h = row[r : r + rows, None] + index[: chunk.shape[1]]
      h += np.uint32(c * _INDEX % 2**32)
      h += chunk
      h = _mix(h, multiply, xorshift)
      first += int(h.sum(dtype=np.uint64))
      h ^= np.uint32(_INDEX)
      second += int(_mix(h, multiply, xorshift).sum(dtype=np.uint64))
  return first % 2**32, second % 2**32


def _device_sums(x: jax.Array) -> dict[jax.Device, jax.Array]:
  """Returns {device of this process: the sums of its shard, uint32 [2]}."""
  sums = _sharded_sums(x.sharding, x.shape)(x)
  return {shard.device: shard.data for shard in sums.addressable_shards}


@functools.cache
def _sharded_sums(sharding: jax.sharding.Sharding, shape: tuple[int, ...]):
  """Returns the jitted function of `_device_sums`; it has no collectives.

  Its result has a row of two sums from every device.
  """
  if not isinstance(sharding, NamedSharding):
    return jax.jit(lambda x: _lanes(x, [0] * x.ndim, shape))
  mesh, spec = sharding.mesh, sharding.spec

  def local(x):
    names = [*spec, *[None] * (x.ndim - len(spec))]
    start = [
      jax.lax.axis_index(name) * size if name else 0
      for name, size in zip(names, x.shape)
    ]
    return _lanes(x, start, shape)

  rows = PartitionSpec(mesh.axis_names)
  return jax.jit(
    jax.shard_map(
      local, mesh=mesh, in_specs=spec, out_specs=rows, check_vma=False
    )
  )


def _lanes(x, start, shape):
  """Returns the two sums of a shard, uint32 [2], in a program.

  Args:
    x: the shard.
    start: its first index along each axis.
    shape: of the whole array.
  """
  word = _word_type(x.dtype)
  if x.dtype == jnp.bool_:
    words = x.astype(word)
  else:  # An 8-byte value becomes two words, along a new last axis.
    words = jax.lax.bitcast_convert_type(x, word)
  h = words.astype(jnp.uint32)
  last = h.shape[x.ndim :]
  shape, start = (*shape, *last), [*start, *[0] * len(last)]
  for axis, stride in enumerate(_strides(shape)):
    index = jax.lax.broadcasted_iota(jnp.uint32, h.shape, axis)
    index += jnp.asarray(start[axis], jnp.uint32)
    h = h + index * jnp.uint32(stride * _INDEX % 2**32)
  mix = functools.partial(
    _mix,
    multiply=lambda h, factor: h * jnp.uint32(factor),
    xorshift=lambda h, bits: h ^ (h >> bits),
  )
  h = mix(h)
  second = mix(h ^ jnp.uint32(_INDEX))
  return jnp.stack([h.sum(dtype=jnp.uint32), second.sum(dtype=jnp.uint32)])
