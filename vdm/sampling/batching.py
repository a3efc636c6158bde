"""Many rows through a function that is compiled for a few."""

from collections.abc import Callable, Iterator, Sequence
import functools
from typing import Any

import jax
import numpy as np

from vdm.multihost import arrays


def apply(
  function: Callable[..., Any],
  inputs: Sequence[Any],
  size: int,
  mesh: jax.sharding.Mesh | None = None,
  poll: Callable[[], None] = lambda: None,
) -> Any:
  """Applies a compiled function to arrays, up to `size` rows at a time.

  Args:
    function: of rows of the arrays; its results have as many rows.
    inputs: the arrays or dicts of arrays, whole on every process.
    size: most rows of a call, see `chunks`.
    mesh: devices to split the rows over; None: all on one device.
    poll: called after every call; may raise.

  Returns:
    What the function returns of all rows, as NumPy arrays.
  """
  outputs = []
  for rows, n in chunks(inputs, size, mesh):
    output = arrays.to_host(function(*rows))
    outputs.append(jax.tree.map(lambda x, n=n: x[:n], output))
    poll()
  return jax.tree.map(lambda *x: np.concatenate(x), *outputs)


def chunks(
  inputs: Sequence[Any],
  size: int,
  mesh: jax.sharding.Mesh | None = None,
) -> Iterator[tuple[list[Any], int]]:
  """Yields (rows of each array, how many of them are real), chunk by chunk.

  Every chunk has the same shape: up to `size` rows, rounded up to the devices.
  There are as few chunks as that allows, and they are as small as their number
  allows; the last one is filled with copies of the last row.
  """
  devices = mesh.size if mesh is not None else 1
  total = len(jax.tree.leaves(inputs)[0])
  parts = -(-total // _multiple(min(size, total), devices))
  size = _multiple(-(-total // parts), devices)
  for start in range(0, total, size):
    index = np.minimum(np.arange(start, start + size), total - 1)
    rows = jax.tree.map(lambda x, index=index: x[index], list(inputs))
    if mesh is not None:
      rows = jax.tree.map(functools.partial(arrays.split, mesh), rows)
    yield rows, min(size, total - start)


def _multiple(n: int, of: int) -> int:
  """Returns the least multiple of `of` that is not below n."""
  return -(-n // of) * of
