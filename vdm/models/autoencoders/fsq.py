"""Finite scalar quantisation: a codebook that is a grid (2309.15505).

Channel c takes one of L_c values. A real value z is bounded and rounded,

  y = half tanh(z + shift) - offset,    q = round(y) / floor(L / 2),

with half = (L - 1)(1 + 1e-3) / 2 and offset = 1/2 for even L, 0 for odd, so
that exactly L whole numbers are in reach; shift = artanh(offset / half) keeps
0 at 0. Rounding passes gradients on unchanged. There is no codebook to learn
and no loss to keep it in use: a token is the number whose digits, to the bases
L_c, are the channels' values.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-3  # How far beyond the outermost values the bound lies.


def size(levels):
  """Number of tokens."""
  return math.prod(levels)


def quantise(z, levels):
  """Real [..., c] -> the values of a code, within [-1, 1], same dtype.

  The gradient is that of the bound: rounding counts as the identity.
  """
  levels = np.asarray(levels)
  half = 0.5 * (levels - 1) * (1.0 + EPSILON)
  offset = np.where(levels % 2, 0.0, 0.5)
  shift = np.arctanh(offset / half)
  y = jnp.tanh(z.astype(jnp.float32) + _row(shift, z)) * _row(half, z)
  y = y - _row(offset, z)
  y = y + jax.lax.stop_gradient(jnp.round(y) - y)
  return (y / _row(levels // 2, z)).astype(z.dtype)


def to_tokens(values, levels):
  """Values of codes [..., c] -> int32 tokens [...]."""
  levels = np.asarray(levels)
  half = _row(levels // 2, values)
  digits = jnp.round(values.astype(jnp.float32) * half + half)
  places = np.cumprod([1, *levels[:-1]])
  return (digits.astype(jnp.int32) * _row(places, digits, jnp.int32)).sum(-1)


def from_tokens(tokens, levels):
  """int32 tokens [...] -> values of codes [..., c], float32."""
  levels = np.asarray(levels)
  tokens = tokens[..., None]
  places = _row(np.cumprod([1, *levels[:-1]]), tokens, jnp.int32)
  digits = tokens // places % _row(levels, tokens, jnp.int32)
  half = _row(levels // 2, tokens)
  return (digits.astype(jnp.float32) - half) / half


def usage(tokens, number):
  """How tokens [...] spread over `number` possible ones.

  Returns:
    {'codes_used': share of the possible ones that occur, 'perplexity': exp of
    the entropy of their frequencies, in tokens}.
  """
  counts = np.bincount(np.asarray(tokens).reshape(-1), minlength=number)
  share = counts[counts > 0] / counts.sum()
  return {
    'codes_used': float(np.mean(counts > 0)),
    'perplexity': float(np.exp(-np.sum(share * np.log(share)))),
  }


def _row(vector, x, dtype=jnp.float32):
  """A vector [c] with the rank of x [..., c]."""
  return jnp.asarray(vector, dtype).reshape((1,) * (x.ndim - 1) + (-1,))
