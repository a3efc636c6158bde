"""Rotary attention against formulas in NumPy."""

import itertools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm.config import attention_rules
from vdm.config import schema
from vdm.models import attention


def normal(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def rotated_by_complex_numbers(x, positions, max_period=100.0):
  """`attention.rotate` of [n, 2, heads, d] as products with exp(i angle)."""
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
  positions = np.asarray(attention.grid_positions(*sizes))
  assert positions.shape == (np.prod(sizes), len(sizes))
  np.testing.assert_array_equal(
    positions, np.stack(np.unravel_index(range(len(positions)), sizes), -1)
  )
  x = normal(len(positions), 2, 3, 8)
  np.testing.assert_allclose(
    attention.rotate(x, positions),
    rotated_by_complex_numbers(x, positions),
    atol=1e-5,
  )


def test_logits_depend_on_differences_of_positions():
  positions = attention.grid_positions(3, 4)
  qk = normal(12, 2, 2, 8)

  def logits(positions):
    x = attention.rotate(qk, positions)
    return jnp.einsum('qhd,khd->hqk', x[:, 0], x[:, 1])

  shifted = positions + jnp.array([[5.0, -3.0]])
  np.testing.assert_allclose(logits(positions), logits(shifted), atol=2e-5)
  # And do depend on them.
  assert np.abs(logits(positions) - logits(2 * positions)).max() > 0.1


def test_a_longer_clip_rotates_its_first_frames_alike():
  x = normal(9, 2, 2, 8)
  long = attention.rotate(x, attention.grid_positions(9))
  short = attention.rotate(x[:4], attention.grid_positions(4))
  np.testing.assert_array_equal(long[:4], short)


def test_attention_is_a_softmax_over_tokens():
  layer, params = tiny_runs.random_module(
    lambda rngs: attention.Attention(8, 4, rngs=rngs)
  )
  assert (layer.heads, layer.head_size) == (2, 4)
  positions = np.asarray(attention.grid_positions(6))
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
  np.testing.assert_allclose(layer(x, positions), wanted, atol=1e-5)


def test_attention_keeps_bfloat16():
  layer, _ = tiny_runs.random_module(
    lambda rngs: attention.Attention(8, 4, rngs=rngs)
  )
  x = normal(2, 5, 8)
  half = layer(jnp.asarray(x, jnp.bfloat16), attention.grid_positions(5))
  assert half.dtype == jnp.bfloat16
  full = layer(x, attention.grid_positions(5))
  np.testing.assert_allclose(half.astype(np.float32), full, atol=0.1)


def test_attention_and_its_gradient_are_those_of_jax():
  q, k, v = normal(3, 2, 9, 2, 8)

  def both(attend):
    return jax.vjp(attend, 30 * q, k, v)[1](jnp.asarray(normal(2, 9, 2, 8)))

  wanted = both(jax.nn.dot_product_attention)
  for found, one in zip(both(attention.attend), wanted):
    np.testing.assert_allclose(found, one, atol=2e-5)
  # Logits of 10 000, whose exponential no float holds.
  large = attention.attend(1e4 * q, k, v)
  np.testing.assert_allclose(
    large, jax.nn.dot_product_attention(1e4 * q, k, v), atol=1e-5
  )


@pytest.mark.parametrize(
  'implementation, platform, dtype, head_size, wanted',
  [
    ('cudnn', 'gpu', jnp.bfloat16, 64, True),
    ('plain', 'gpu', jnp.bfloat16, 64, False),
    ('cudnn', 'cpu', jnp.bfloat16, 64, False),
    ('cudnn', 'tpu', jnp.bfloat16, 64, False),
    ('cudnn', 'gpu', jnp.float32, 64, False),
    ('cudnn', 'gpu', jnp.bfloat16, 20, False),
    ('cudnn', 'gpu', jnp.bfloat16, 136, False),
  ],
)
def test_the_fused_kernel_is_used_where_there_is_one(
  implementation, platform, dtype, head_size, wanted, monkeypatch
):
  asked = []

  def attend(q, k, v, *, implementation):
    del k, v
    asked.append(implementation)
    return q

  monkeypatch.setattr(jax.nn, 'dot_product_attention', attend)
  q = jnp.zeros((2, 4, 2, head_size), dtype)
  with attention.traced_for(platform):
    attention.attend(q, q, q, implementation)
  assert asked == ['cudnn'] * wanted


def test_every_attention_of_a_network_is_what_its_key_says(monkeypatch):
  asked = []

  def attend(q, k, v, implementation, mask=None):
    del k, v
    asked.append(implementation)
    return q

  monkeypatch.setattr(attention, 'attend', attend)
  config = tiny_runs.make_config()
  config.model.update(
    attention_levels=(0,), temporal_attention_levels=(0,), attention='cudnn'
  )
  network = models.make_unet(config.model, 3)
  z, levels = jnp.zeros((1, 2, 4, 4, 3)), jnp.zeros((1, 2))
  cond = {'label': jnp.zeros(1, jnp.int32)}
  jax.eval_shape(network.apply, network.abstract_params(), z, levels, cond)
  assert asked == ['cudnn'] * 3  # Over space, over time and over both.


def test_the_fused_kernel_computes_the_same():
  if jax.default_backend() != 'gpu':
    pytest.skip('needs an NVIDIA GPU')
  q, k, v = jnp.asarray(normal(3, 2, 64, 2, 32), jnp.bfloat16)

  def both(implementation):
    def total(q, k, v):
      y = attention.attend(q, k, v, implementation).astype(jnp.float32)
      return jnp.sin(y).sum(), y

    grads, y = jax.grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    return (y, *grads)

  for found, wanted in zip(both('cudnn'), both('plain')):
    np.testing.assert_allclose(
      found.astype(jnp.float32), wanted.astype(jnp.float32), atol=0.05
    )


def test_the_rules_accept_what_attention_can_be():
  """All channels in heads that rotary positions can turn, or one sentence."""
  config = schema.default().model
  config.update(widths=(8,), blocks=(1,), attention_levels=(0,))
  accepted = 0
  for width, head_size in itertools.product(range(2, 25), (2, 3, 4, 6, 8, 32)):
    layer = attention.Attention(width, head_size, rngs=nnx.Rngs(0))
    x = jax.ShapeDtypeStruct((1, 3, width), jnp.float32)
    works = layer.heads * layer.head_size == width
    try:
      jax.eval_shape(layer, x, attention.grid_positions(3))
    except (TypeError, ValueError):
      works = False
    config.update(widths=(width,), head_size=head_size)
    found = list(attention_rules.problems(config))
    assert works == (not found), (width, head_size)
    accepted += works
    if found and width % 2 == 0:
      config.head_size = int(found[0].rstrip('.').split()[-1])
      assert not list(attention_rules.problems(config)), found
  assert accepted > 20
  # What does not attend is free.
  config.update(widths=(100,), attention_levels=(), temporal_levels=())
  assert not list(attention_rules.problems(config))
