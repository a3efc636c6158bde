"""Layers against loops and formulas in NumPy."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm.models import layers


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def correlate(x, kernel, axes):
  """Products with a kernel's matrices at every offset, zeros outside."""
  sizes = kernel.shape[:-2]
  pad = [(0, 0)] * x.ndim
  for axis, size in zip(axes, sizes):
    pad[axis] = (size // 2, size // 2)
  padded = np.pad(x.astype(np.float64), pad)
  total = 0
  for offsets in np.ndindex(*sizes):
    window = [slice(None)] * x.ndim
    for axis, offset in zip(axes, offsets):
      window[axis] = slice(offset, offset + x.shape[axis])
    total = total + padded[tuple(window)] @ kernel[offsets].astype(np.float64)
  return total


def test_conv_is_a_correlation_over_each_frame():
  conv, params = tiny_runs.random_module(
    lambda rngs: layers.Conv(2, 5, rngs=rngs)
  )
  x = normal(2, 3, 6, 4, 2)
  wanted = correlate(x, params['kernel'], (2, 3)) + params['bias']
  np.testing.assert_allclose(conv(x), wanted, atol=1e-5)
  # Leading axes are only folded.
  np.testing.assert_allclose(conv(x[1, 2]), wanted[1, 2], atol=1e-5)


def test_strided_conv_takes_every_second_place():
  conv, params = tiny_runs.random_module(
    lambda rngs: layers.Conv(2, 3, stride=2, rngs=rngs)
  )
  x = normal(2, 3, 6, 4, 2)
  wanted = correlate(x, params['kernel'], (2, 3)) + params['bias']
  # 'SAME' pads an even size at its far end alone.
  np.testing.assert_allclose(conv(x), wanted[:, :, 1::2, 1::2], atol=1e-5)


def test_temporal_conv_is_a_correlation_over_frames():
  def build(rngs):
    return layers.TemporalConv(2, 5, rngs=rngs)

  conv, params = tiny_runs.random_module(build)
  x = normal(2, 4, 3, 5, 2)
  kernel = params['kernel'][:, 0]
  wanted = correlate(x, kernel, (1,)) + params['bias']
  np.testing.assert_allclose(conv(x), wanted, atol=1e-5)


def test_positions_to_channels_and_back():
  x = np.arange(2 * 3 * 4 * 6 * 5, dtype=np.float32).reshape(2, 3, 4, 6, 5)
  y = layers.space_to_depth(x, 2)
  assert y.shape == (2, 3, 2, 3, 20)
  np.testing.assert_array_equal(y[1, 2, 1, 2], x[1, 2, 2:4, 4:6].reshape(-1))
  np.testing.assert_array_equal(layers.depth_to_space(y, 2), x)


def test_full_conv_is_a_correlation_over_space_and_time():
  conv, params = tiny_runs.random_module(
    lambda rngs: layers.FullConv(2, 5, rngs=rngs)
  )
  before, after = params['temporal_kernel']
  kernel = np.stack([before, params['kernel'], after])
  x = normal(2, 4, 3, 5, 2)
  wanted = correlate(x, kernel, (1, 2, 3)) + params['bias']
  np.testing.assert_allclose(conv(x), wanted, atol=1e-5)
  # One frame sees the middle slice alone.
  one = correlate(x[:, :1], params['kernel'], (2, 3)) + params['bias']
  np.testing.assert_allclose(conv(x[:, :1]), one, atol=1e-5)


def test_group_norm_is_its_formula():
  norm, params = tiny_runs.random_module(lambda rngs: layers.GroupNorm(24))
  assert norm.group_size == 12  # The widest up to 16 that divides 24.
  x = 3 * normal(2, 3, 4, 5, 24) + 1
  y = x.astype(np.float64).reshape(2, 3, 20, 2, 12)
  mean = y.mean(axis=(2, 4), keepdims=True)
  y = (y - mean) / np.sqrt(y.var(axis=(2, 4), keepdims=True) + 1e-5)
  wanted = y.reshape(x.shape) * params['scale'] + params['bias']
  np.testing.assert_allclose(norm(x), wanted, atol=2e-5)


def test_group_norm_of_large_values_loses_no_digits():
  """In float32 E[x^2] - E[x]^2 at a mean of 3000 has no digit left."""
  norm, params = tiny_runs.random_module(lambda rngs: layers.GroupNorm(16))
  x = normal(2, 3, 8, 8, 16) + np.float32(3000)
  y = x.astype(np.float64)
  mean = y.mean(axis=(2, 3, 4), keepdims=True)
  y = (y - mean) / np.sqrt(y.var(axis=(2, 3, 4), keepdims=True) + 1e-5)
  wanted = y * params['scale'] + params['bias']
  # What is left is the rounding of y about the first position, 8 digits below
  # the deviation: x itself is exact.
  np.testing.assert_allclose(jax.jit(norm)(x), wanted, atol=1e-4)
  # A constant frame has no variance, and nothing but the bias.
  flat = jax.jit(norm)(np.full((1, 1, 4, 4, 16), 3000.1, np.float32))
  np.testing.assert_allclose(flat[0, 0, 0, 0], params['bias'], atol=1e-6)


def test_the_gradient_of_group_norm_is_its_formula_s():
  norm, params = tiny_runs.random_module(lambda rngs: layers.GroupNorm(8))
  x, weight = 3 * normal(1, 2, 3, 3, 8) + 20, normal(1, 2, 3, 3, 8, seed=1)
  found = jax.grad(lambda x: (norm(x) * weight).sum())(x)
  y = x.astype(np.float64)
  axes = dict(axis=(2, 3, 4), keepdims=True)
  deviation = np.sqrt(y.var(**axes) + 1e-5)
  y = (y - y.mean(**axes)) / deviation
  g = weight * params['scale']
  wanted = (g - g.mean(**axes) - y * (g * y).mean(**axes)) / deviation
  np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_group_norm_knows_one_frame_at_a_time():
  norm, _ = tiny_runs.random_module(lambda rngs: layers.GroupNorm(8))
  x = normal(2, 3, 4, 4, 8)
  changed = x.copy()
  changed[0, 2] = 7 * changed[0, 2] + 3
  before, after = np.asarray(norm(x)), np.asarray(norm(changed))
  assert np.array_equal(before[0, :2], after[0, :2])
  assert np.array_equal(before[1], after[1])
  # An affine map of a whole frame is normalised away: nothing of it is left.
  np.testing.assert_allclose(before[0, 2], after[0, 2], atol=1e-4)


def test_rms_norm_is_its_formula():
  x, scale = 5 * normal(2, 3, 4), normal(1, 1, 4, seed=1)
  root = np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6)
  wanted = x / root * scale
  np.testing.assert_allclose(layers.rms_norm(x, scale), wanted, atol=1e-5)


def test_dropout_of_a_row_depends_on_its_own_key():
  x = jnp.ones((4, 1000))
  keys = jax.random.split(jax.random.key(0), 4)
  y = layers.dropout(x, 0.2, keys)
  np.testing.assert_array_equal(layers.dropout(x[2:3], 0.2, keys[2:3]), y[2:3])
  assert not np.array_equal(y[0], y[1])
  assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.8)}
  # 4 standard errors of the share of 4000 values.
  assert abs((y == 0).mean() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
  assert layers.dropout(x, 0.2, None) is x
  assert layers.dropout(x, 0.0, keys) is x


@pytest.mark.parametrize(
  'build',
  [
    lambda rngs: layers.Linear(8, 8, rngs=rngs),
    lambda rngs: layers.Conv(8, 8, rngs=rngs),
    lambda rngs: layers.TemporalConv(8, 8, rngs=rngs),
    lambda rngs: layers.FullConv(8, 8, rngs=rngs),
    lambda rngs: layers.GroupNorm(8),
  ],
)
def test_layers_compute_in_the_dtype_of_their_input(build):
  layer, params = tiny_runs.random_module(build)
  x = normal(1, 2, 3, 3, 8)
  half = layer(jnp.asarray(x, jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('f')}
  # bfloat16 has 8 bits; outputs are of the order of one.
  np.testing.assert_allclose(half.astype(np.float32), layer(x), atol=0.1)


def test_dropout_keeps_bfloat16():
  keys = jax.random.split(jax.random.key(0), 2)
  x = jnp.ones((2, 5), jnp.bfloat16)
  assert layers.dropout(x, 0.5, keys).dtype == jnp.bfloat16


def test_initial_values_keep_the_variance():
  rngs = nnx.Rngs(params=jax.random.key(0))
  x = normal(512, 64)
  y = layers.Linear(64, 64, rngs=rngs, init_scale=0.5)(x)
  # Relative error of a variance of 64 x 64 weights: 2^0.5 / 64, 4 of them.
  np.testing.assert_allclose(y.var(), 0.25, rtol=0.1)
  zero = layers.Conv(4, 4, rngs=rngs, init_scale=0.0)
  assert not np.any(zero(normal(1, 4, 4, 4)))
