"""Attention block by block against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.models import attention
from vdm.models import blockwise_attention


def inputs(tokens, scale=1.0):
  random = np.random.default_rng(0)
  arrays = random.normal(size=(4, 2, tokens, 2, 12)).astype(np.float32)
  arrays[0] *= scale
  return arrays


def exact(q, k, v, g):
  """The output and the gradients of (output * g).sum(), in float64."""
  q, k, v, g = (x.astype(np.float64).swapaxes(1, 2) for x in (q, k, v, g))
  scale = q.shape[-1] ** -0.5
  logits = scale * q @ k.swapaxes(-2, -1)
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  weights /= weights.sum(axis=-1, keepdims=True)
  y = weights @ v
  d_weights = g @ v.swapaxes(-2, -1)
  # The derivative of a softmax: w_i (d_i - sum_j w_j d_j).
  mean = (weights * d_weights).sum(axis=-1, keepdims=True)
  d_logits = scale * weights * (d_weights - mean)
  gradients = (
    d_logits @ k,
    d_logits.swapaxes(-2, -1) @ q,
    weights.swapaxes(-2, -1) @ g,
  )
  return [x.swapaxes(1, 2) for x in (y, *gradients)]


# A scale of 30 makes logits of some hundred, whose exponential overflows.
@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_output_and_gradients_are_those_of_the_formula(scale):
  *qkv, g = inputs(192, scale)
  y, pull = jax.vjp(blockwise_attention.attend, *qkv)
  for got, expected in zip((y, *pull(g)), exact(*qkv, g), strict=True):
    np.testing.assert_allclose(
      got, expected, atol=3e-5 * np.abs(expected).max()
    )


def test_16_bit_numbers_come_back_as_they_are_and_lose_little():
  *qkv, g = (jnp.asarray(x, jnp.bfloat16) for x in inputs(192))
  y, pull = jax.vjp(blockwise_attention.attend, *qkv)
  as_float = [np.asarray(x, np.float32) for x in (*qkv, g)]
  for got, expected in zip((y, *pull(g)), exact(*as_float), strict=True):
    assert got.dtype == jnp.bfloat16
    # bfloat16 has 8 significant bits; sums are float32.
    error = np.asarray(got, np.float32) - expected
    assert np.linalg.norm(error) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize(
  ('tokens', 'blocks'), [(512, True), (256, False), (520, False)]
)
def test_long_sequences_on_a_cpu_go_block_by_block(monkeypatch, tokens, blocks):
  called = []
  monkeypatch.setattr(
    blockwise_attention, 'attend', lambda q, k, v: called.append(0) or v
  )
  q, k, v, _ = inputs(tokens)
  attention.attend(q, k, v)
  assert bool(called) == blocks
  called.clear()
  with attention.traced_for('gpu'):
    attention.attend(q, k, v)
  assert not called


def test_no_array_of_all_pairs_of_tokens_is_stored():
  q, k, v, _ = inputs(1024)

  def peak(function):
    gradient = jax.grad(lambda *x: function(*x).sum(), (0, 1, 2))
    compiled = jax.jit(gradient).lower(q, k, v).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  pairs = q.shape[0] * q.shape[2] * 1024**2 * 4
  assert peak(blockwise_attention.attend) < pairs / 2
