"""Finite scalar quantisation: a codebook that is a grid (2309.15505).

Channel c takes one of L_c values. A real value z is bounded and rounded,

  y = half tanh(z + shift) - offset,    q = round(y) / floor(L / 2),

with half = (L - 1)(1 + 1e-3) / 2 and offset = 1/2 for even L, 0 for odd, so
that exactly L whole numbers are in reach; shift = artanh(offset / half) maps 0
to 0. Rounding has the gradient of the identity. There is no codebook to learn
and no loss for its usage: a token is the number whose digits, in the mixed
radix L_c, are the channels' values.
"""

from collections.abc import Sequence
import math

from etils.array_types import FloatArray, IntArray
import jax
import jax.numpy as jnp
import numpy as np

from vdm.models import layers
from vdm.models import tokens

EPSILON = 1e-3  # Relative distance of the bound from the outermost values.


def size(levels: Sequence[int]) -> int:
  """Returns the number of tokens."""
  return math.prod(levels)


def quantise(
  z: FloatArray['*b c'], levels: Sequence[int]
) -> FloatArray['*b c']:
  """Returns the values of codes, in [-1, 1] and in the dtype of z.

  The gradient is that of the bound: rounding counts as the identity.
  """
  levels = np.asarray(levels)
  half = 0.5 * (levels - 1) * (1.0 + EPSILON)
  offset = np.where(levels % 2, 0.0, 0.5)
  shift = np.arctanh(offset / half)
  y = z.astype(jnp.float32)
  y = jnp.tanh(y + layers.along_channels(shift, y))
  y = y * layers.along_channels(half, y) - layers.along_channels(offset, y)
  y = y + jax.lax.stop_gradient(jnp.round(y) - y)
  return (y / layers.along_channels(levels // 2, y)).astype(z.dtype)


def to_digits(
  values: FloatArray['*b c'], levels: Sequence[int]
) -> IntArray['*b c']:
  """Returns which of its values each channel of codes has, int32 from 0."""
  values = values.astype(jnp.float32)
  half = layers.along_channels(np.asarray(levels) // 2, values)
  return jnp.round(values * half + half).astype(jnp.int32)


def from_digits(
  digits: IntArray['*b c'], levels: Sequence[int]
) -> FloatArray['*b c']:
  """Inverts `to_digits`: the float32 values, to the bit."""
  y = digits.astype(jnp.float32)
  half = layers.along_channels(np.asarray(levels) // 2, y)
  return (y - half) / half


def to_tokens(
  values: FloatArray['*b c'], levels: Sequence[int]
) -> IntArray['*b']:
  """Returns the int32 tokens of codes."""
  return tokens.pack(to_digits(values, levels), (tuple(levels),))[..., 0]


def usage(found: IntArray['*b'], number: int) -> dict[str, float]:
  """Measures how many of `number` possible tokens are found, and how evenly.

  Returns:
    {'codes_used': share of the possible tokens that occur, 'perplexity': exp of
    the entropy of their frequencies, in tokens}.
  """
  counts = np.bincount(np.asarray(found).reshape(-1), minlength=number)
  share = counts[counts > 0] / counts.sum()
  return {
    'codes_used': float(np.mean(counts > 0)),
    'perplexity': float(np.exp(-np.sum(share * np.log(share)))),
  }
