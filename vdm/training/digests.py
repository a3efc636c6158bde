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
"""

from collections.abc import Mapping
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_INDEX = 0x9E3779B9
_MULTIPLIERS = (0x85EBCA6B, 0xC2B2AE35)
# Words that NumPy mixes at once: small enough to stay in a core's cache.
_CHUNK = 2**16


def digests(leaves: Mapping[str, Any]) -> dict[str, str]:
  """Returns {name: digest} of {name: jax.Array or np.ndarray}.

  Arrays in the memory of this host are read there, which compiles nothing;
  others are digested where they are, by one small program for each shape.
  Every process of a run must call it with the same names.

  Raises:
    TypeError: a leaf's dtype is none of bool, (u)int and float of 1 to 8 bytes.
  """
  lanes = {
    name: _host_lanes(np.asarray(x)) if _on_host(x) else _device_lanes(x)
    for name, x in leaves.items()
  }
  lanes = jax.device_get(lanes)
  return {n: f'{int(a):08x}{int(b):08x}' for n, (a, b) in lanes.items()}


def _on_host(x: Any) -> bool:
  if not isinstance(x, jax.Array):
    return True
  return x.is_fully_addressable and all(
    device.platform == 'cpu' for device in x.sharding.device_set
  )


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


def _host_lanes(x: np.ndarray) -> tuple[int, int]:
  """Returns the two sums of an array in host memory."""

  def multiply(h, factor):
    h *= np.uint32(factor)
    return h

  def xorshift(h, bits):
    h ^= h >> np.uint32(bits)
    return h

  words = np.ascontiguousarray(x).reshape(-1).view(_word_type(x.dtype))
  index = np.arange(min(words.size, _CHUNK), dtype=np.uint32)
  index *= np.uint32(_INDEX)
  first, second = 0, 0
  for start in range(0, words.size, _CHUNK):
    chunk = words[start : start + _CHUNK]
    h = index[: chunk.size] + np.uint32(start * _INDEX % 2**32)
    h += chunk
    h = _mix(h, multiply, xorshift)
    first += int(h.sum(dtype=np.uint64))
    h ^= np.uint32(_INDEX)
    second += int(_mix(h, multiply, xorshift).sum(dtype=np.uint64))
  return first % 2**32, second % 2**32


def _device_lanes(x: jax.Array) -> jax.Array:
  """Returns the two sums, uint32 [2], the same on every process."""
  sharding = x.sharding
  if isinstance(sharding, jax.sharding.NamedSharding):
    spec = jax.sharding.PartitionSpec()
    return _sums(jax.sharding.NamedSharding(sharding.mesh, spec))(x)
  return _sums(None)(x)


@functools.cache
def _sums(out_sharding: jax.sharding.Sharding | None):
  """Returns the jitted function of `_device_lanes`."""

  def sums(x):
    word = _word_type(x.dtype)
    if x.dtype == jnp.bool_:
      words = x.astype(word)
    else:  # An 8-byte value becomes two words, along a new last axis.
      words = jax.lax.bitcast_convert_type(x, word)
    h = words.astype(jnp.uint32)
    # Row-major index without a reshape, which would gather a sharded array.
    for axis in range(h.ndim):
      stride = math.prod(h.shape[axis + 1 :]) * _INDEX % 2**32
      index = jax.lax.broadcasted_iota(jnp.uint32, h.shape, axis)
      h = h + index * jnp.uint32(stride)
    mix = functools.partial(
      _mix,
      multiply=lambda h, factor: h * jnp.uint32(factor),
      xorshift=lambda h, bits: h ^ (h >> bits),
    )
    h = mix(h)
    second = mix(h ^ jnp.uint32(_INDEX))
    return jnp.stack([h.sum(dtype=jnp.uint32), second.sum(dtype=jnp.uint32)])

  return jax.jit(sums, out_shardings=out_sharding)
