"""The layers that the networks are made of, on channels-last video.

Every layer computes in the dtype of its input and keeps float32 parameters;
normalisation statistics and attention logits are float32 whatever the input.

Both directions of a factorised space-time convolution are the same 2D
convolution, and neither transposes: over space on `(b t) h w c`, over time on
`b t (h w) c` with a `3 x 1` kernel. `benchmarks/convolutions.py` measures it
against matrix products over shifted copies and a 3D convolution.
"""

from flax import nnx
import jax
import jax.numpy as jnp


def scaled_normal(key, shape, fan_in, scale=1.0):
  """Normal values of variance `scale^2 / fan_in`; zeros for scale 0."""
  if scale == 0.0:
    return jnp.zeros(shape, jnp.float32)
  return scale * fan_in**-0.5 * jax.random.normal(key, shape, jnp.float32)


def along_channels(vector, x):
  """A parameter [c] in the dtype and with the rank of x [..., c]."""
  return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def conv2d(x, kernel, stride=1, padding='SAME'):
  """Convolves [n, h, w, c] with [kh, kw, c, d]."""
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride, stride),
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def upsample(x):
  """Repeats each place of [b, t, h, w, c] twice along h and w."""
  b, t, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, :, None, :, None], (b, t, h, 2, w, 2, c))
  return x.reshape(b, t, 2 * h, 2 * w, c)


def conv3d(x, kernel, stride=1):
  """Convolves [n, t, h, w, c] with [kt, kh, kw, c, d], 'SAME' padding."""
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride,) * 3,
    padding='SAME',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )


def max_pool3d(x, window, stride):
  """Maxima over windows of [n, t, h, w, c], 'SAME' padding."""
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), 'SAME'
  )


class Linear(nnx.Module):
  """A matrix product over the last axis."""

  def __init__(self, cin, cout, *, rngs, init_scale=1.0, bias=True):
    self.kernel = nnx.Param(
      scaled_normal(rngs.params(), (cin, cout), cin, init_scale)
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32)) if bias else None

  def __call__(self, x):
    x = x @ self.kernel[...].astype(x.dtype)
    if self.bias is None:
      return x
    return x + along_channels(self.bias[...], x)


class Conv(nnx.Module):
  """A convolution over (h, w) of [..., h, w, c]; leading axes are folded.

  `padding` is 'SAME' or ((above, below), (left, right)).
  """

  def __init__(
    self,
    cin,
    cout,
    kernel=3,
    *,
    rngs,
    init_scale=1.0,
    stride=1,
    padding='SAME',
    bias=True,
  ):
    shape = (kernel, kernel, cin, cout)
    self.kernel = nnx.Param(
      scaled_normal(rngs.params(), shape, cin * kernel**2, init_scale)
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32)) if bias else None
    self.stride, self.padding = stride, padding

  def __call__(self, x):
    y = x.reshape(-1, *x.shape[-3:])
    y = conv2d(y, self.kernel[...], self.stride, self.padding)
    if self.bias is not None:
      y = y + along_channels(self.bias[...], y)
    return y.reshape(*x.shape[:-3], *y.shape[-3:])


class TemporalConv(nnx.Module):
  """A convolution over t of [b, t, h, w, c]."""

  def __init__(self, cin, cout, kernel=3, *, rngs, init_scale=1.0):
    self.kernel = nnx.Param(
      scaled_normal(
        rngs.params(), (kernel, 1, cin, cout), cin * kernel, init_scale
      )
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32))

  def __call__(self, x):
    b, t, h, w, c = x.shape
    y = conv2d(x.reshape(b, t, h * w, c), self.kernel[...])
    y = y + along_channels(self.bias[...], y)
    return y.reshape(b, t, h, w, -1)


class FullConv(nnx.Module):
  """A 3 x 3 x 3 convolution whose middle slice is an image model's kernel.

  The slices that see other frames start at zero and are left out when t = 1:
  a trained image model keeps its function when it becomes a video model.
  """

  def __init__(self, cin, cout, *, rngs, init_scale=1.0):
    self.kernel = nnx.Param(
      scaled_normal(rngs.params(), (3, 3, cin, cout), 9 * cin, init_scale)
    )
    self.bias = nnx.Param(jnp.zeros((cout,), jnp.float32))
    self.temporal_kernel = nnx.Param(
      jnp.zeros((2, 3, 3, cin, cout), jnp.float32)
    )

  def __call__(self, x):
    if x.shape[1] == 1:
      y = conv2d(x[:, 0], self.kernel[...])[:, None]
    else:
      before, after = self.temporal_kernel[...]
      kernel = jnp.stack([before, self.kernel[...], after])
      y = conv3d(x, kernel)
    return y + along_channels(self.bias[...], y)


class GroupNorm(nnx.Module):
  """Group normalisation whose statistics are those of one frame."""

  def __init__(self, channels, *, group_size=16, epsilon=1e-5):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
    # The widest group up to `group_size` that divides the channels.
    self.group_size = max(
      n for n in range(1, group_size + 1) if channels % n == 0
    )
    self.epsilon = epsilon

  def __call__(self, x):
    *leading, h, w, c = x.shape
    y = x.astype(jnp.float32).reshape(
      *leading, h * w, c // self.group_size, self.group_size
    )
    mean = y.mean(axis=(-3, -1), keepdims=True)
    variance = jnp.square(y - mean).mean(axis=(-3, -1), keepdims=True)
    y = (y - mean) * jax.lax.rsqrt(variance + self.epsilon)
    y = y.reshape(x.shape)
    y = y * along_channels(self.scale[...], y)
    return (y + along_channels(self.bias[...], y)).astype(x.dtype)


def rms_norm(x, scale, epsilon=1e-6):
  """Divides by the root mean square of the last axis, in float32.

  Args:
    x: [..., d].
    scale: parameter with the rank of x.
    epsilon: added to the mean square.
  """
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + epsilon)
  return (y * scale).astype(x.dtype)


def rotate(x, positions, max_period=100.0):
  """Rotary embedding over any number of axes (Su et al., 2104.09864).

  Pairs of channels are dealt out to the axes in turn, so that each axis gets
  fast and slow ones. Positions are whole numbers of frames or latent pixels:
  other lengths and sizes need no new parameter.

  Args:
    x: [..., n, 2, heads, d], d even.
    positions: [n, axes], the place of each token.
    max_period: of the slowest pair, in radians per unit of position.

  Returns:
    x, rotated.
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


def grid_positions(*sizes):
  """Places of the tokens of a grid: [prod(sizes), len(sizes)] float32."""
  axes = [jnp.arange(n, dtype=jnp.float32) for n in sizes]
  grid = jnp.meshgrid(*axes, indexing='ij')
  return jnp.stack([axis.reshape(-1) for axis in grid], axis=-1)


class Attention(nnx.Module):
  """Self-attention over the tokens of [n, tokens, c].

  Queries and keys are RMS-normalised, which keeps the logits bounded in
  bfloat16 (Dehghani et al., 2302.05442), and rotated by their positions. The
  output projection starts at zero.
  """

  def __init__(self, channels, head_size, *, rngs):
    self.heads = max(1, channels // head_size)
    self.head_size = channels // self.heads
    width = self.heads * self.head_size
    self.qkv = Linear(channels, 3 * width, rngs=rngs, bias=False)
    # One scale each for queries and keys.
    self.scale = nnx.Param(jnp.ones((2, 1, self.head_size), jnp.float32))
    self.out = Linear(width, channels, rngs=rngs, init_scale=0.0)

  def __call__(self, x, positions):
    n, tokens, _ = x.shape
    qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, self.head_size)
    qk, v = qkv[:, :, :2], qkv[:, :, 2]
    qk = rotate(rms_norm(qk, self.scale[...][None, None]), positions)
    y = jax.nn.dot_product_attention(qk[:, :, 0], qk[:, :, 1], v)
    return self.out(y.reshape(n, tokens, -1))


def dropout(x, rate, keys):
  """Zeroes a share `rate` of the values, each row's by its own key.

  Args:
    x: [b, ...].
    rate: share of the values that become zero.
    keys: [b] typed keys; None for no dropout.
  """
  if keys is None or rate == 0.0:
    return x

  def draw(key):
    return jax.random.bernoulli(key, 1.0 - rate, x.shape[1:])

  return jnp.where(jax.vmap(draw)(keys), x / (1.0 - rate), 0.0).astype(x.dtype)
