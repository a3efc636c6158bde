"""Layers against loops and formulas in NumPy."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm.models import layers


def randomised(build):
  """A module with random parameters, and these as a nested dict."""
  module = build(nnx.Rngs(params=jax.random.key(0)))
  params = nnx.to_pure_dict(nnx.state(module))
  params = tiny_runs.randomise(params, scale=1.0)
  arrays = jax.tree.map(jnp.asarray, params)
  return nnx.merge(nnx.graphdef(module), arrays), params


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
  conv, params = randomised(lambda rngs: layers.Conv(2, 5, rngs=rngs))
  x = normal(2, 3, 6, 4, 2)
  wanted = correlate(x, params['kernel'], (2, 3)) + params['bias']
  np.testing.assert_allclose(conv(x), wanted, atol=1e-5)
  # Leading axes are only folded.
  np.testing.assert_allclose(conv(x[1, 2]), wanted[1, 2], atol=1e-5)


def test_strided_conv_takes_every_second_place():
  conv, params = randomised(lambda rngs: layers.Conv(2, 3, stride=2, rngs=rngs))
  x = normal(2, 3, 6, 4, 2)
  wanted = correlate(x, params['kernel'], (2, 3)) + params['bias']
  # 'SAME' pads an even size at its far end alone.
  np.testing.assert_allclose(conv(x), wanted[:, :, 1::2, 1::2], atol=1e-5)


def test_temporal_conv_is_a_correlation_over_frames():
  def build(rngs):
    return layers.TemporalConv(2, 5, rngs=rngs)

  conv, params = randomised(build)
  x = normal(2, 4, 3, 5, 2)
  kernel = params['kernel'][:, 0]
  wanted = correlate(x, kernel, (1,)) + params['bias']
  np.testing.assert_allclose(conv(x), wanted, atol=1e-5)


def test_full_conv_is_a_correlation_over_space_and_time():
  conv, params = randomised(lambda rngs: layers.FullConv(2, 5, rngs=rngs))
  before, after = params['temporal_kernel']
  kernel = np.stack([before, params['kernel'], after])
  x = normal(2, 4, 3, 5, 2)
  wanted = correlate(x, kernel, (1, 2, 3)) + params['bias']
  np.testing.assert_allclose(conv(x), wanted, atol=1e-5)
  # One frame sees the middle slice alone.
  one = correlate(x[:, :1], params['kernel'], (2, 3)) + params['bias']
  np.testing.assert_allclose(conv(x[:, :1]), one, atol=1e-5)


def test_group_norm_is_its_formula():
  norm, params = randomised(lambda rngs: layers.GroupNorm(24))
  assert norm.group_size == 12  # The widest up to 16 that divides 24.
  x = 3 * normal(2, 3, 4, 5, 24) + 1
  y = x.astype(np.float64).reshape(2, 3, 20, 2, 12)
  mean = y.mean(axis=(2, 4), keepdims=True)
  y = (y - mean) / np.sqrt(y.var(axis=(2, 4), keepdims=True) + 1e-5)
  wanted = y.reshape(x.shape) * params['scale'] + params['bias']
  np.testing.assert_allclose(norm(x), wanted, atol=2e-5)


def test_group_norm_knows_one_frame_at_a_time():
  norm, _ = randomised(lambda rngs: layers.GroupNorm(8))
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


def rotated_by_complex_numbers(x, positions, max_period=100.0):
  """`layers.rotate` of [n, 2, heads, d] as products with exp(i angle)."""
  pairs, axes = x.shape[-1] // 2, positions.shape[-1]
  z = x[..., :pairs].astype(np.complex128) + 1j * x[..., pairs:]
  for pair in range(pairs):
    of_axis = -(-pairs // axes)
    frequency = max_period ** -((pair // axes) / of_axis)
    angle = positions[:, pair % axes] * frequency
    z[..., pair] *= np.exp(1j * angle)[:, None, None]
  return np.concatenate([z.real, z.imag], axis=-1)


@pytest.mark.parametrize('sizes', [(5,), (3, 4), (2, 3, 2)])
def test_rotation_is_a_complex_product(sizes):
  positions = np.asarray(layers.grid_positions(*sizes))
  assert positions.shape == (np.prod(sizes), len(sizes))
  np.testing.assert_array_equal(
    positions, np.stack(np.unravel_index(range(len(positions)), sizes), -1)
  )
  x = normal(len(positions), 2, 3, 8)
  np.testing.assert_allclose(
    layers.rotate(x, positions),
    rotated_by_complex_numbers(x, positions),
    atol=1e-5,
  )


def test_logits_depend_on_differences_of_positions():
  positions = layers.grid_positions(3, 4)
  qk = normal(12, 2, 2, 8)

  def logits(positions):
    x = layers.rotate(qk, positions)
    return jnp.einsum('qhd,khd->hqk', x[:, 0], x[:, 1])

  shifted = positions + jnp.array([[5.0, -3.0]])
  np.testing.assert_allclose(logits(positions), logits(shifted), atol=2e-5)
  # And do depend on them.
  assert np.abs(logits(positions) - logits(2 * positions)).max() > 0.1


def test_a_longer_clip_rotates_its_first_frames_alike():
  x = normal(9, 2, 2, 8)
  long = layers.rotate(x, layers.grid_positions(9))
  short = layers.rotate(x[:4], layers.grid_positions(4))
  np.testing.assert_array_equal(long[:4], short)


def test_attention_is_a_softmax_over_tokens():
  def build(rngs):
    return layers.Attention(8, 4, rngs=rngs)

  attention, params = randomised(build)
  assert (attention.heads, attention.head_size) == (2, 4)
  positions = np.asarray(layers.grid_positions(6))
  x = normal(3, 6, 8)
  qkv = (x.astype(np.float64) @ params['qkv']['kernel']).reshape(3, 6, 3, 2, 4)
  qk = qkv[:, :, :2]
  qk = qk / np.sqrt((qk**2).mean(-1, keepdims=True) + 1e-6) * params['scale']
  wanted = []
  for rows, v in zip(qk, qkv[:, :, 2]):
    q, k = rotated_by_complex_numbers(rows, positions).swapaxes(0, 1)
    logits = np.einsum('qhd,khd->hqk', q, k) / 4**0.5
    weights = np.exp(logits)
    weights /= weights.sum(-1, keepdims=True)
    wanted.append(np.einsum('hqk,khd->qhd', weights, v).reshape(6, 8))
  wanted = np.stack(wanted) @ params['out']['kernel'] + params['out']['bias']
  np.testing.assert_allclose(attention(x, positions), wanted, atol=1e-5)


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
  layer, params = randomised(build)
  x = normal(1, 2, 3, 3, 8)
  half = layer(jnp.asarray(x, jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('f')}
  # bfloat16 has 8 bits; outputs are of the order of one.
  np.testing.assert_allclose(half.astype(np.float32), layer(x), atol=0.1)


def test_attention_and_dropout_keep_bfloat16():
  attention, _ = randomised(lambda rngs: layers.Attention(8, 4, rngs=rngs))
  x = normal(2, 5, 8)
  half = attention(jnp.asarray(x, jnp.bfloat16), layers.grid_positions(5))
  assert half.dtype == jnp.bfloat16
  full = attention(x, layers.grid_positions(5))
  np.testing.assert_allclose(half.astype(np.float32), full, atol=0.1)
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
