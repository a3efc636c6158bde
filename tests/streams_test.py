"""Streams of randomness do not meet, and do not depend on the process."""

import jax
import numpy as np

from vdm.config import schema
from vdm.training import streams


def test_streams_differ_by_seed_and_by_name_alone():
  config = schema.default()

  def draw(*names):
    return int(jax.random.bits(streams.stream(config, *names)))

  values = [draw(), draw('stage'), draw('stage', 'video'), draw('init')]
  config.seed = 1
  values += [draw(), draw('stage', 'video')]
  assert len(set(values)) == len(values)
  config.seed = 0
  assert draw('stage', 'video') == values[2]


def test_a_name_means_the_same_in_every_process():
  # Its CRC-32, written out: Python's own hash of a string is salted.
  expected = jax.random.fold_in(jax.random.key(0), np.uint32(0xC27C9369))
  stream = streams.stream(schema.default(), 'stage')
  np.testing.assert_array_equal(
    jax.random.key_data(stream), jax.random.key_data(expected)
  )
