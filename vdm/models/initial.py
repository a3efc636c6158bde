"""Draws the initial values of a network, those of like sizes together.

With a program for every array, which is what `nnx.Rngs` leads to, most of what
a new run compiles before its first step is the same generator, once for each
of hundreds of arrays. Here arrays are drawn in rows of one length, which are
cut: value i of a draw depends on its key and on i alone (threefry, as jax has
it by default), so that each array is what it would be by itself.

A network is built twice: with `Shapes`, which notes what it draws, and with
`Values`. Both stand for `nnx.Rngs`, and `layers.scaled_normal` takes what their
`params()` returns in place of a key.
"""

from collections.abc import Callable
import functools
import math

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
import numpy as np

# Lengths of rows. Longer arrays are drawn as long as they are: cutting them
# would waste memory.
ROWS = (2**8, 2**12, 2**16)

Shape = tuple[int, ...]


class Shapes:
  """Notes the shapes that are drawn, by the number of their key.

  Attributes:
    found: {number: shape}.
  """

  def __init__(self):
    self.found, self._count = {}, 0

  def params(self) -> Callable[[Shape], FloatArray['...']]:
    """Returns a function that notes a shape; see `nnx.RngStream`."""
    number, self._count = self._count, self._count + 1
    return functools.partial(self._note, number)

  def _note(self, number, shape):
    self.found[number] = shape
    return jnp.zeros(shape, jnp.float32)


class Values:
  """Gives out what was drawn, in the order in which it was noted."""

  def __init__(self, values: dict[int, FloatArray['...']]):
    self._values, self._count = values, 0

  def params(self) -> Callable[[Shape], FloatArray['...']]:
    """Returns a function of the shape; see `nnx.RngStream`."""
    number, self._count = self._count, self._count + 1
    return lambda shape: self._values[number].reshape(shape)


def draw(key: jax.Array, shapes: dict[int, Shape]) -> Values:
  """Returns standard normal values, as float32.

  Args:
    key: of the network; array i is drawn with `fold_in(key, i)`.
    shapes: see `Shapes`.
  """
  numbers = sorted(shapes)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    key, np.array(numbers, np.uint32)
  )
  rows = {}
  for place, number in enumerate(numbers):
    length = _row(key, math.prod(shapes[number]))
    rows.setdefault(length, []).append((place, number))
  values = {}
  for length, members in rows.items():
    own = keys[np.array([place for place, _ in members])]
    drawn = jax.vmap(lambda k, n=length: jax.random.normal(k, (n,)))(own)
    for row, (_, number) in zip(drawn, members):
      values[number] = row[: math.prod(shapes[number])]
  return Values(values)


def _row(key, size):
  """Returns how many values are drawn for an array."""
  by_index = jax.config.jax_threefry_partitionable
  if not by_index or str(jax.random.key_impl(key)) != 'threefry2x32':
    return size  # Others may draw shorter rows in another way.
  return next((row for row in ROWS if size <= row), size)
