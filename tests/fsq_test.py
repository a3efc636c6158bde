"""Finite scalar quantisation against an enumeration of its grid."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.models.autoencoders import fsq

LEVELS = (8, 5, 3, 2)


def grid(levels):
  """What a channel may take, by definition: whole numbers over L // 2."""
  return [
    (np.arange(n) - n // 2) / (n // 2) for n in levels
  ]  # -4..3 of 8, -2..2 of 5, -1..1 of 3, -1..0 of 2.


def test_a_channel_takes_exactly_its_levels():
  z = jnp.linspace(-12, 12, 4001)[:, None] * jnp.ones((1, 4))
  values = np.asarray(fsq.quantise(z, LEVELS))
  for channel, wanted in zip(values.T, grid(LEVELS)):
    found = np.unique(channel)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.all(np.diff(channel) >= 0)  # In order.
  np.testing.assert_array_equal(fsq.quantise(jnp.zeros((1, 4)), LEVELS), 0.0)


def test_every_token_has_one_code():
  codes = np.array(list(itertools.product(*grid(LEVELS))), np.float32)
  assert len(codes) == fsq.size(LEVELS) == 240
  tokens = np.asarray(fsq.to_tokens(jnp.asarray(codes), LEVELS))
  assert tokens.dtype == np.int32
  np.testing.assert_array_equal(np.sort(tokens), np.arange(240))
  # The first channel's value is the last digit.
  digits = np.array(list(itertools.product(*map(range, LEVELS))))
  np.testing.assert_array_equal(
    tokens, np.ravel_multi_index(digits.T[::-1], LEVELS[::-1])
  )
  np.testing.assert_array_equal(
    codes[tokens.argsort()][:3, 0], [-1.0, -0.75, -0.5]
  )


def test_codes_survive_quantising_and_bfloat16():
  """What the network is given is quantised to itself by nearest value."""
  codes = np.array(list(itertools.product(*grid(LEVELS))), np.float32)
  half = jnp.asarray(codes, jnp.bfloat16)
  np.testing.assert_array_equal(
    fsq.to_tokens(half, LEVELS), fsq.to_tokens(jnp.asarray(codes), LEVELS)
  )


def test_digits_are_the_values_to_the_bit():
  codes = np.array(list(itertools.product(*grid(LEVELS))), np.float32)
  digits = np.asarray(fsq.to_digits(jnp.asarray(codes), LEVELS))
  wanted = list(itertools.product(*map(range, LEVELS)))
  np.testing.assert_array_equal(digits, wanted)
  z = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32) * 2
  values = fsq.quantise(jnp.asarray(z), LEVELS)
  back = fsq.from_digits(fsq.to_digits(values, LEVELS), LEVELS)
  np.testing.assert_array_equal(back, values)


def test_the_gradient_is_the_bounds():
  z = jnp.array([[-1.3, 0.4, 2.0, 0.1]])

  def bound(z):
    """In float64, from the definition."""
    levels = np.asarray(LEVELS, np.float64)
    half = (levels - 1) * 1.001 / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    shift = 0.5 * np.log((half + offset) / (half - offset))
    return (half * np.tanh(z + shift) - offset) / (levels // 2)

  found = jax.grad(lambda z: fsq.quantise(z, LEVELS).sum())(z)
  z = np.asarray(z, np.float64)
  wanted = (bound(z + 1e-6) - bound(z - 1e-6)) / 2e-6
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_usage():
  found = fsq.usage(np.array([[0, 1], [2, 3]]), 8)
  assert found == {'codes_used': 0.5, 'perplexity': pytest.approx(4.0)}
  # exp of the entropy of (3/4, 1/4).
  found = fsq.usage(np.array([5, 5, 5, 0]), 8)
  assert found['perplexity'] == pytest.approx(4 / 3**0.75)
