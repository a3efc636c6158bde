"""Attention: to tokens with rotary positions over any axes, and to a text.

The logits are always float32. By default they are an array in memory; a CPU
goes through many tokens block by block instead. cuDNN's fused kernel keeps them
on the chip; its backward pass adds up in an order that changes from run to run,
so it has to be asked for.
"""

from collections.abc import Iterator
import contextlib

from etils.array_types import BoolArray, FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

from vdm.models import blockwise_attention
from vdm.models import layers


def rotate(
  x: FloatArray['*b n 2 heads d'],
  positions: FloatArray['n axes'],
  max_period: float = 100.0,
) -> FloatArray['*b n 2 heads d']:
  """Applies rotary embeddings over any number of axes (Su et al., 2104.09864).

  Pairs of channels are assigned to the axes in turn, so that each axis gets
  fast and slow ones. Positions are whole numbers of frames or latent pixels:
  other lengths and sizes need no new parameter.

  Args:
    x: queries and keys of n tokens, d even.
    positions: of each token.
    max_period: of the slowest pair, in units of position per radian.
  """
  pairs, axes = x.shape[-1] // 2, positions.shape[-1]
  axis = jnp.arange(pairs) % axes
  rank = jnp.arange(pairs) // axes / max(1, -(-pairs // axes))
  angle = positions[:, axis] * max_period ** -rank[None]  # [n, pairs]
  # [n, 1, 1, pairs], over queries and keys and over heads.
  angle = angle.reshape((1,) * (x.ndim - 4) + (len(angle), 1, 1, pairs))
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  ).astype(x.dtype)


def grid_positions(*sizes: int) -> FloatArray['n axes']:
  """Returns the positions of the tokens of a grid, the last axis fastest."""
  axes = [jnp.arange(n, dtype=jnp.float32) for n in sizes]
  grid = jnp.meshgrid(*axes, indexing='ij')
  return jnp.stack([axis.reshape(-1) for axis in grid], axis=-1)


def attend(
  q: FloatArray['n tokens heads d'],
  k: FloatArray['n keys heads d'],
  v: FloatArray['n keys heads d'],
  implementation: str = 'plain',
  mask: BoolArray['n keys'] | None = None,
) -> FloatArray['n tokens heads d']:
  """Returns softmax(q k / d^0.5) v.

  Args:
    q: queries.
    k: keys; as many as queries, unless there is a mask.
    v: values.
    implementation: 'plain', or 'cudnn' for the fused kernel where there is one:
      on an NVIDIA GPU (Ampere or later), for 16-bit numbers and heads of up to
      128 channels, a multiple of 8. Elsewhere the plain one, or its blockwise
      form.
    mask: which keys there are, at least one; None: all. With a mask it is the
      plain one: texts are short.
  """
  d = q.shape[-1]
  fused = (
    implementation == 'cudnn'
    and mask is None
    and backend() == 'gpu'
    and q.dtype in (jnp.bfloat16, jnp.float16)
    and d % 8 == 0
    and d <= 128
  )
  if fused:
    return jax.nn.dot_product_attention(q, k, v, implementation='cudnn')
  blockwise = mask is None and blockwise_attention.suits(q.shape[1])
  if backend() == 'cpu' and blockwise:
    return blockwise_attention.attend(q, k, v)
  q, k, v = (x.swapaxes(-3, -2) for x in (q, k, v))
  logits = d**-0.5 * jnp.einsum(
    '...qd,...kd->...qk', q, k, preferred_element_type=jnp.float32
  )
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, -jnp.inf)
  # Weights are divided by their sum after the product with v, where there are
  # fewer numbers: half the time of `jax.nn.softmax` on a CPU.
  largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  weights = jnp.exp(logits - largest)
  y = (weights.astype(v.dtype) @ v) / weights.sum(axis=-1, keepdims=True)
  return y.astype(v.dtype).swapaxes(-3, -2)


_platforms = []  # Of the `traced_for` that are open.


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
  """Traces functions for a platform that is not this process's own."""
  _platforms.append(platform)
  try:
    yield
  finally:
    _platforms.pop()


def backend() -> str:
  """Returns the platform that functions are traced for."""
  return _platforms[-1] if _platforms else jax.default_backend()


class Attention(nnx.Module):
  """Self-attention over tokens.

  Queries and keys are RMS-normalised, which bounds the logits in bfloat16
  (Dehghani et al., 2302.05442), and rotated by their positions. The output
  projection starts at zero.
  """

  def __init__(
    self,
    channels: int,
    head_size: int,
    *,
    rngs: nnx.Rngs,
    implementation: str = 'plain',
  ):
    """Makes the layer; `attend` explains `implementation`."""
    self.implementation = implementation
    self.heads = max(1, channels // head_size)
    self.head_size = channels // self.heads
    width = self.heads * self.head_size
    self.qkv = layers.Linear(channels, 3 * width, rngs=rngs, bias=False)
    # One scale each for queries and keys.
    self.scale = nnx.Param(jnp.ones((2, 1, self.head_size), jnp.float32))
    self.out = layers.Linear(width, channels, rngs=rngs, init_scale=0.0)

  def __call__(
    self,
    x: FloatArray['n tokens c'],
    positions: FloatArray['tokens axes'],
    mask: BoolArray['n tokens'] | None = None,
  ) -> FloatArray['n tokens c']:
    n, tokens, _ = x.shape
    qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, self.head_size)
    qk, v = qkv[:, :, :2], qkv[:, :, 2]
    qk = rotate(layers.rms_norm(qk, self.scale[...][None, None]), positions)
    y = attend(qk[:, :, 0], qk[:, :, 1], v, self.implementation, mask)
    return self.out(y.reshape(n, tokens, -1))


class CrossAttention(nnx.Module):
  """Attention to the tokens of a text, which have their positions in them.

  Queries and keys are RMS-normalised, and the output projection starts at zero,
  as in `Attention`.
  """

  def __init__(
    self, channels: int, text_width: int, head_size: int, *, rngs: nnx.Rngs
  ):
    self.heads = max(1, channels // head_size)
    self.head_size = channels // self.heads
    width = self.heads * self.head_size
    self.q = layers.Linear(channels, width, rngs=rngs, bias=False)
    self.kv = layers.Linear(text_width, 2 * width, rngs=rngs, bias=False)
    # One scale each for queries and keys.
    self.scale = nnx.Param(jnp.ones((2, self.head_size), jnp.float32))
    self.out = layers.Linear(width, channels, rngs=rngs, init_scale=0.0)

  def __call__(
    self,
    x: FloatArray['b tokens c'],
    text: FloatArray['b n d'],
    mask: BoolArray['b n'],
  ) -> FloatArray['b tokens c']:
    """Attends to the tokens of the text that there are, at least one a row."""
    b, tokens, _ = x.shape
    scale = self.scale[...].reshape(2, 1, 1, 1, -1)
    q = self.q(x).reshape(b, tokens, self.heads, self.head_size)
    kv = self.kv(text).reshape(b, -1, 2, self.heads, self.head_size)
    y = attend(
      layers.rms_norm(q, scale[0]),
      layers.rms_norm(kv[:, :, 0], scale[1]),
      kv[:, :, 1],
      mask=mask,
    )
    return self.out(y.reshape(b, tokens, -1))
