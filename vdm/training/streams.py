"""Where a run's random numbers come from: its seed, names and the step."""

import zlib

import jax


def stream(config, *names):
  """A key that the run's seed and these names decide."""
  key = jax.random.key(config.seed)
  for name in names:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
  return key
