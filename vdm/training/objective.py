"""What a stage optimises: an objective is a handful of functions.

  init     (key, clips)           -> parameters
  draw     (batch, key, n)        -> rows: the batch and its randomness
  loss     (params, frozen, rows) -> (total, count, sums), which add up over
                                     rows; the loss is total / count
  validate (params, frozen, clips)-> {name: number}
  preview  (params, frozen, clips)-> {name: uint8 [n t h w 3]}
  samples  (params, frozen, clips)-> uint8 [n t h w 3], one a clip, of its
                                     conditions; for a `rollouts.Task` that
                                     follows, with its frames given

`frozen` is an argument and never a captured constant: nothing for the
autoencoder; the autoencoder's parameters and statistics for diffusion and
tokens; besides, the parameters of the teacher for consistency. For `preview`
and `samples` it may have an EARLIER average to guide against. n counts the
steps of the stage from 0. The training loop knows none of the four.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

EARLIER = 'earlier'  # A `generate.Average` in `frozen`.

# Streams of a step's key and of a row's key.
LEVELS, CONDITIONS, ROWS, AUGMENTATION = 0, 1, 2, 3
NOISE, DROPOUT, POSTERIOR, LOW = 0, 1, 2, 3


class Objective(NamedTuple):
  """The functions of an objective; see the module's docstring.

  Attributes:
    excluded_paths: single_frames -> patterns of the paths that a step does
      not train, whatever the stage freezes.
    abstract_params: () -> shapes and dtypes of what `init` returns.
    inherits: whether `train.init_from` applies to its parameters.
    constant: patterns of the paths of parameters that no stage trains.
    imported: of those that are not learned here, which `init_from` leaves.
    samples: None for an objective that generates nothing.
  """

  init: Callable[..., Any]
  draw: Callable[..., Any]
  loss: Callable[..., Any]
  validate: Callable[..., Any]
  preview: Callable[..., Any]
  excluded_paths: Callable[[bool], tuple[str, ...]]
  abstract_params: Callable[[], Any]
  inherits: bool
  constant: tuple[str, ...]
  imported: tuple[str, ...]
  samples: Callable[..., Any] | None


def apart(frozen: dict[str, Any]) -> tuple[dict[str, Any], Any]:
  """Returns what a stage works in, and what its samples are guided against.

  The latter is None where they are guided by conditions.
  """
  rest = {k: x for k, x in frozen.items() if k != EARLIER}
  return rest, frozen.get(EARLIER)


def row_keys(key: jax.Array, rows: int) -> jax.Array:
  """Returns one key a row: a row is the same in any part of a batch."""
  return jax.random.split(jax.random.fold_in(key, ROWS), rows)
