"""Layers shared by the networks, on channels-last video.

Every layer computes in the dtype of its input and has float32 parameters;
normalisation statistics are always float32.

Both parts of a factorised space-time convolution are the same 2D convolution,
without a transpose: over space on [(b t) h w c], over time on [b t (h w) c]
with a 3 x 1 kernel. `benchmarks/convolutions.py` compares it with matrix
products over shifted copies and with a 3D convolution.
"""

from collections.abc import Callable
from typing import Any

from etils.array_types import FloatArray
from flax import nnx
import jax
import jax.numpy as jnp

# 'SAME', or ((above, below), (left, right)).
Padding = str | tuple[tuple[int, int], tuple[int, int]]


def scaled_normal(
  key: jax.Array | Callable[..., jax.Array],
  shape: tuple[int, ...],
  fan_in: int,
  scale: float = 1.0,
) -> FloatArray['*shape']:
  """Returns normal values of variance scale^2 / fan_in; zeros for scale 0.

  Args:
    key: or a function of a shape that draws with it, see `initial`.
    shape: of the values.
    fan_in: inputs of an output.
    scale: see above.
  """
  if scale == 0.0:
    return jnp.zeros(shape, jnp.float32)
  if callable(key):
    values = key(shape)
  else:
    values = jax.random.normal(key, shape, jnp.float32)
  return scale * fan_in**-0.5 * values


def along_channels(
  vector: Any, x: FloatArray['*b c'], dtype: Any = None
) -> FloatArray['... c']:
  """Returns a vector [c] with the rank of x, in the dtype of x by default."""
  vector = jnp.asarray(vector, x.dtype if dtype is None else dtype)
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def conv2d(
  x: FloatArray['n h w c'],
  kernel: FloatArray['kh kw c d'],
  stride: int = 1,
  padding: Padding = 'SAME',
) -> FloatArray['n y x d']:
  """Convolves over (h, w)."""
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride, stride),
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def upsample(x: FloatArray['b t h w c']) -> FloatArray['b t y x c']:
  """Repeats each pixel twice along h and w."""
  b, t, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, :, None, :, None], (b, t, h, 2, w, 2, c))
  return x.reshape(b, t, 2 * h, 2 * w, c)


def shrink(x: FloatArray['*b h w c'], factor: int) -> FloatArray['*b y x c']:
  """Shrinks h and w by `factor`, averaging over areas."""
  *leading, h, w, c = x.shape
  x = x.reshape(*leading, h // factor, factor, w // factor, factor, c)
  return x.mean(axis=(-4, -2))


def space_to_depth(
  x: FloatArray['*b t h w c'], factor: int, time: int = 1
) -> FloatArray['*b s y x d']:
  """Moves patches to channels.

  Args:
    x: clips, NumPy's or jax's.
    factor: height and width of a patch.
    time: frames of a patch.

  Returns:
    s = t / time, y = h / factor, x = w / factor, d = time factor^2 c, in the
    order of a patch [time factor factor c].
  """
  *leading, t, h, w, c = x.shape
  s, y, v = t // time, h // factor, w // factor
  x = x.reshape(-1, s, time, y, factor, v, factor, c)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(*leading, s, y, v, time * factor * factor * c)


def depth_to_space(
  x: FloatArray['*b s y x d'], factor: int, time: int = 1
) -> FloatArray['*b t h w c']:
  """Inverts `space_to_depth`."""
  *leading, s, y, v, d = x.shape
  x = x.reshape(-1, s, y, v, time, factor, factor, d // (time * factor**2))
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
  return x.reshape(*leading, s * time, y * factor, v * factor, x.shape[-1])


def conv3d(
  x: FloatArray['n t h w c'],
  kernel: FloatArray['kt kh kw c d'],
  stride: int = 1,
) -> FloatArray['n z y x d']:
  """Convolves over (t, h, w), with 'SAME' padding."""
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride,) * 3,
    padding='SAME',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )


def max_pool3d(
  x: FloatArray['n t h w c'],
  window: tuple[int, int, int],
  stride: tuple[int, int, int],
) -> FloatArray['n z y x c']:
  """Takes maxima over windows of (t, h, w), with 'SAME' padding."""
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), 'SAME'
  )


class Linear(nnx.Module):
  """A matrix product over the last axis."""

  def __init__(
    self,
    cin: int,
    cout: int,
    *,
    rngs: nnx.Rngs,
    init_scale: float = 1.0,
    bias: bool = True,
  ):
    self.kernel = nnx.Param(
      scaled_normal(rngs.params(), (cin, cout), cin, init_scale)
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32)) if bias else None

  def __call__(self, x: FloatArray['*b c']) -> FloatArray['*b d']:
    x = x @ self.kernel[...].astype(x.dtype)
    if self.bias is None:
      return x
    return x + along_channels(self.bias[...], x)


class Conv(nnx.Module):
  """A convolution over (h, w); leading axes are folded."""

  def __init__(
    self,
    cin: int,
    cout: int,
    kernel: int = 3,
    *,
    rngs: nnx.Rngs,
    init_scale: float = 1.0,
    stride: int = 1,
    padding: Padding = 'SAME',
    bias: bool = True,
  ):
    shape = (kernel, kernel, cin, cout)
    self.kernel = nnx.Param(
      scaled_normal(rngs.params(), shape, cin * kernel**2, init_scale)
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32)) if bias else None
    self.stride, self.padding = stride, padding

  def __call__(self, x: FloatArray['*b h w c']) -> FloatArray['*b y x d']:
    y = x.reshape(-1, *x.shape[-3:])
    y = conv2d(y, self.kernel[...], self.stride, self.padding)
    if self.bias is not None:
      y = y + along_channels(self.bias[...], y)
    return y.reshape(*x.shape[:-3], *y.shape[-3:])


class TemporalConv(nnx.Module):
  """A convolution over t."""

  def __init__(
    self,
    cin: int,
    cout: int,
    kernel: int = 3,
    *,
    rngs: nnx.Rngs,
    init_scale: float = 1.0,
  ):
    self.kernel = nnx.Param(
      scaled_normal(
        rngs.params(), (kernel, 1, cin, cout), cin * kernel, init_scale
      )
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32))

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t h w d']:
    b, t, h, w, c = x.shape
    y = conv2d(x.reshape(b, t, h * w, c), self.kernel[...])
    y = y + along_channels(self.bias[...], y)
    return y.reshape(b, t, h, w, -1)


class FullConv(nnx.Module):
  """A 3 x 3 x 3 convolution whose middle slice is an image model's kernel.

  The slices over other frames start at zero and are skipped when t = 1: a
  trained image model computes the same function as a video model.
  """

  def __init__(
    self, cin: int, cout: int, *, rngs: nnx.Rngs, init_scale: float = 1.0
  ):
    self.kernel = nnx.Param(
      scaled_normal(rngs.params(), (3, 3, cin, cout), 9 * cin, init_scale)
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32))
    self.temporal_kernel = nnx.Param(
      jnp.zeros((2, 3, 3, cin, cout), jnp.float32)
    )

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t h w d']:
    if x.shape[1] == 1:
      y = conv2d(x[:, 0], self.kernel[...])[:, None]
    else:
      before, after = self.temporal_kernel[...]
      kernel = jnp.stack([before, self.kernel[...], after])
      y = conv3d(x, kernel)
    return y + along_channels(self.bias[...], y)


class Conv3D(nnx.Module):
  """A convolution over (t, h, w), zero until weights are loaded."""

  def __init__(self, cin: int, cout: int, kernel: int):
    self.kernel = nnx.Param(jnp.zeros((kernel,) * 3 + (cin, cout)))
    self.bias = nnx.Param(jnp.zeros((cout,)))

  def __call__(self, x: FloatArray['n t h w c']) -> FloatArray['n t h w d']:
    y = conv3d(x, self.kernel[...])
    return y + along_channels(self.bias[...], y)


class GroupNorm(nnx.Module):
  """Group normalisation with the statistics of single frames.

  Both moments are taken in one pass, about the mean at the first position: a
  frame far from zero loses no digits, as it does about zero. Statistics do not
  depend on that value, so neither does the gradient.
  """

  def __init__(
    self, channels: int, *, group_size: int = 16, epsilon: float = 1e-5
  ):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
    # The largest group up to `group_size` that divides the channels.
    self.group_size = max(
      n for n in range(1, group_size + 1) if channels % n == 0
    )
    self.epsilon = epsilon

  def __call__(self, x: FloatArray['*b h w c']) -> FloatArray['*b h w c']:
    *leading, h, w, c = x.shape
    groups = c // self.group_size, self.group_size
    y = x.astype(jnp.float32).reshape(*leading, h * w, *groups)
    about = y[..., :1, :, :].mean(axis=-1, keepdims=True)
    y = y - jax.lax.stop_gradient(about)
    mean, square = (
      z.mean(axis=(-3, -1), keepdims=True) for z in (y, jnp.square(y))
    )
    variance = jnp.maximum(square - jnp.square(mean), 0.0)
    scale, bias = (
      p[...].reshape((1,) * (y.ndim - 2) + groups)
      for p in (self.scale, self.bias)
    )
    gain = scale * jax.lax.rsqrt(variance + self.epsilon)
    y = y * gain + (bias - mean * gain)
    return y.reshape(x.shape).astype(x.dtype)


def rms_norm(
  x: FloatArray['*b d'], scale: FloatArray['... d'], epsilon: float = 1e-6
) -> FloatArray['*b d']:
  """Divides by the root mean square of the last axis, in float32.

  Args:
    x: of any float dtype, which the result has too.
    scale: parameter with the rank of x.
    epsilon: added to the mean square.
  """
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + epsilon)
  return (y * scale).astype(x.dtype)


class RMSNorm(nnx.Module):
  """Divides each position by its root mean square."""

  def __init__(self, channels: int):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))

  def __call__(self, x: FloatArray['*b c']) -> FloatArray['*b c']:
    return rms_norm(x, along_channels(self.scale[...], x, jnp.float32))


def dropout(
  x: FloatArray['b ...'], rate: float, keys: jax.Array | None
) -> FloatArray['b ...']:
  """Zeroes a share `rate` of the values, with one key per row [b].

  Without keys it returns x.
  """
  if keys is None or rate == 0.0:
    return x

  def draw(key):
    return jax.random.bernoulli(key, 1.0 - rate, x.shape[1:])

  return jnp.where(jax.vmap(draw)(keys), x / (1.0 - rate), 0.0).astype(x.dtype)


def keys_of_block(keys: jax.Array | None, number: int) -> jax.Array | None:
  """Returns a block's own keys of the dropout, [b]; None without keys."""
  if keys is None:
    return None
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def rematerialised(
  policy: str, call: Callable[..., FloatArray['b t h w c']]
) -> Callable[..., FloatArray['b t h w c']]:
  """Returns a function that recomputes its activations by policy.

  Args:
    policy: none, dots (products are kept) or block, see `model.remat`.
    call: the function.
  """
  if policy == 'none':
    return call
  if policy == 'dots':
    return jax.checkpoint(call, policy=jax.checkpoint_policies.dots_saveable)
  return jax.checkpoint(call)
