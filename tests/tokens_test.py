"""Codes as tokens, against NumPy's mixed radix."""

import jax.numpy as jnp
import numpy as np
import pytest

from vdm.models import tokens

LEVELS = (8, 8, 8, 5, 5, 5)


@pytest.mark.parametrize(
  'largest, wanted',
  [
    (1024, ((8, 8, 8), (5, 5, 5))),
    (512, ((8, 8, 8), (5, 5, 5))),
    (64_000, (LEVELS,)),
    (64, ((8, 8), (8, 5), (5, 5))),
    (4, tuple((n,) for n in LEVELS)),  # A channel with more is alone.
  ],
)
def test_groups_are_as_large_as_allowed(largest, wanted):
  assert tokens.group(LEVELS, largest) == wanted
  assert sum(tokens.group(LEVELS, largest), ()) == LEVELS


@pytest.mark.parametrize('largest', [5, 64, 1024])
def test_tokens_are_the_digits_in_mixed_radix(largest):
  groups = tokens.group(LEVELS, largest)
  generator = np.random.default_rng(0)
  digits = generator.integers(0, LEVELS, (3, 4, len(LEVELS)))
  packed = np.asarray(tokens.pack(jnp.asarray(digits), groups))
  assert packed.shape == (3, 4, len(groups)) and packed.dtype == np.int32
  start = 0
  for i, levels in enumerate(groups):
    part = np.moveaxis(digits[..., start : start + len(levels)], -1, 0)
    np.testing.assert_array_equal(
      packed[..., i], np.ravel_multi_index(part[::-1], levels[::-1])
    )
    start += len(levels)
  assert (packed < tokens.sizes(groups)).all()
  back = tokens.unpack(jnp.asarray(packed), groups)
  np.testing.assert_array_equal(back, digits)
