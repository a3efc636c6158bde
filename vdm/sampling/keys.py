"""Random keys of videos: each follows from its own seed, and window by window.

A window's key has streams of its own: where sampling starts, what its steps
draw, the noise of history guidance, and that of a smaller video that is told.
"""

from etils.array_types import IntArray
import jax
import jax.numpy as jnp

from vdm.diffusion import process

# Streams of a video's key.
START, STEPS, HISTORY, WINDOWS, LOW = 0, 1, 2, 3, 4


def of_window(seeds: IntArray[' n'], number: int | IntArray['']) -> jax.Array:
  """Returns the keys of the videos' window `number`; the first has the seed's.

  Args:
    seeds: of the videos.
    number: of the window.
  """
  keys = jax.vmap(jax.random.key)(seeds)
  later = process.fold_in(process.fold_in(keys, WINDOWS), number)
  return jnp.where(number == 0, keys, later)
