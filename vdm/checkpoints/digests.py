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

No collective is used: processes exchange the sums of their shards as text.
Hundreds of small collectives dispatched at once have been seen to deadlock, in
two processes with four CPU devices each.
"""

from collections.abc import Iterable, Mapping
import functools
import json
import math
from typing import Any

from etils.array_types import Array
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from vdm.multihost import coordination

_INDEX = 0x9E3779B9
# Words that NumPy mixes at once: small enough to stay in a core's cache.
_BLOCK = 2**16


def digests(leaves: Mapping[str, Array['...']]) -> dict[str, str]:
  """Returns {name: digest} of {name: jax.Array or np.ndarray}.

  Arrays in host memory are digested there, which compiles nothing; others where
  they are, by one small program for each shape and sharding. Every process of a
  run calls it with the same names. Of a shard that several processes have
  copies of, each digests its own, and takes the sums of shards that it does not
  have from the first process that has them.

  Raises:
    TypeError: a leaf's dtype is none of bool, (u)int and float of 1 to 8 bytes.
  """
  # {name: {start of a shard: its two sums}}
  parts = jax.device_get({name: _parts(x) for name, x in leaves.items()})
  spread = {
    name: parts[name]
    for name, x in leaves.items()
    if isinstance(x, jax.Array)
    and not (x.is_fully_addressable or x.is_fully_replicated)
  }
  if spread:
    message = json.dumps(spread, default=np.ndarray.tolist)
    for text in coordination.gather('digests', message):
      for name, shards in json.loads(text).items():
        parts[name] = shards | parts[name]
  return {name: _text(shards.values()) for name, shards in parts.items()}


def _text(sums: Iterable[Any]) -> str:
  """Returns the digest of an array, from the two sums of each shard."""
  totals = (sum(map(int, lane)) % 2**32 for lane in zip(*sums))
  return ''.join(f'{total:08x}' for total in totals)


def _parts(x: Array['...']) -> dict[str, Any]:
  """Returns {first index of a shard along each axis, as text: its two sums}.

  Of a shard that this process has several copies of, one counts.
  """
  if not isinstance(x, jax.Array):
    x = np.asarray(x)
    return {'': _host_sums(_words(x), x.shape, (0,) * x.ndim)}
  on_device, parts = {}, {}
  if all(device.platform != 'cpu' for device in x.devices()):
    sums = _device_sums(x, x.sharding)
    on_device = {shard.device: shard.data for shard in sums.addressable_shards}
  for shard in x.addressable_shards:
    start = tuple(axis.start or 0 for axis in shard.index)
    if on_device:
      parts[str(start)] = on_device[shard.device]
    elif str(start) not in parts:
      words = _words(np.asarray(shard.data))
      parts[str(start)] = _host_sums(words, x.shape, start)
  return parts


def _host_sums(words, shape, start) -> list[int]:
  """Returns the two sums over a shard in host memory, see `_sums`."""
  if words.size <= _BLOCK:
    return [int(x) for x in _sums(words, shape, start)]
  axis = next(axis for axis, size in enumerate(words.shape) if size > 1)
  half = words.shape[axis] // 2
  moved = (*start[:axis], start[axis] + half, *start[axis + 1 :])
  first, second = np.split(words, [half], axis)
  pairs = zip(_host_sums(first, shape, start), _host_sums(second, shape, moved))
  return [sum(pair) for pair in pairs]


@functools.partial(jax.jit, static_argnames='sharding')
def _device_sums(x, sharding):
  """Returns the two sums over each device's shard, uint32 [2 * devices].

  The program has no collectives.
  """
  if not isinstance(sharding, NamedSharding):
    return jnp.stack(_sums(_words(x), x.shape, (0,) * x.ndim))
  mesh, spec = sharding.mesh, sharding.spec

  def local(shard):
    names = [*spec, *[None] * (x.ndim - len(spec))]
    start = [
      jax.lax.axis_index(name) * size if name else 0
      for name, size in zip(names, shard.shape)
    ]
    return jnp.stack(_sums(_words(shard), x.shape, start))

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=spec,
    out_specs=PartitionSpec(mesh.axis_names),
    check_vma=False,
  )(x)


def _word_type(dtype: Any) -> np.dtype:
  """Returns the unsigned type whose words stand for values of `dtype`."""
  dtype = np.dtype(dtype)
  kinds = (jnp.bool_, jnp.integer, jnp.floating)
  below_a_byte = dtype.name.endswith(('int2', 'int4', 'float4_e2m1fn'))
  if below_a_byte or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
    raise TypeError(f'A checkpoint takes no arrays of dtype {dtype}.')
  return np.dtype(f'uint{8 * min(dtype.itemsize, 4)}')


def _words(x):
  """Returns values as words; those of 8 bytes give two, along a new last axis.

  Args:
    x: NumPy array, which always gets the last axis, or a traced array.
  """
  word = _word_type(x.dtype)
  if not isinstance(x, jax.Array):
    return np.ascontiguousarray(x).reshape(*x.shape, 1).view(word)
  if x.dtype == jnp.bool_:
    return x.astype(word)
  return jax.lax.bitcast_convert_type(x, word)


def _sums(words, shape, start):
  """Returns the two sums over a shard, by NumPy or traced by jax.

  Args:
    words: of the shard, see `_words`.
    shape: of the whole array.
    start: first index of the shard along each axis.
  """
  xp = jnp if isinstance(words, jax.Array) else np
  last = words.shape[len(shape) :]
  shape, start = (*shape, *last), (*start, *(0 for _ in last))
  index = np.uint32(0)
  # The short axes first: only the last sum has the size of `words`.
  for axis in sorted(range(words.ndim), key=lambda axis: words.shape[axis]):
    stride = np.uint32(math.prod(shape[axis + 1 :]) * _INDEX % 2**32)
    along = xp.arange(words.shape[axis], dtype=np.uint32)
    along = (along + xp.uint32(start[axis])) * stride
    index = index + along.reshape(
      [-1 if other == axis else 1 for other in range(words.ndim)]
    )
  h = _mix(index + words)
  first = h.sum(dtype=np.uint32)
  h ^= np.uint32(_INDEX)
  return first, _mix(h).sum(dtype=np.uint32)


def _mix(h):
  """Returns MurmurHash3's finaliser of uint32 words, in place for NumPy's."""
  h ^= h >> np.uint32(16)
  h *= np.uint32(0x85EBCA6B)
  h ^= h >> np.uint32(13)
  h *= np.uint32(0xC2B2AE35)
  h ^= h >> np.uint32(16)
  return h
