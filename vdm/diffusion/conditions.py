"""What a denoiser is told about clips: a dict of arrays with a row a clip.

  label       int32 [b], a class; -1 for none
  frame_rate  float32 [b], frames a second; NaN for unknown
  motion      float32 [b], frame widths a second; NaN for unknown

Each condition has a null value, which stands for not being told, and is
dropped by itself in training: the network then learns what guidance needs.
"""

from collections.abc import Callable, Mapping
from typing import Any
import zlib

from etils.array_types import Array
import jax
import jax.numpy as jnp
import numpy as np

# Numbers of a clip. Guidance contrasts what is shown and keeps them, as Stable
# Video Diffusion does.
SCALARS = ('frame_rate', 'motion')
# (array) -> the null value of each of its rows.
NULL: dict[str, Callable[[Any], Any]] = {
  'label': lambda x: jnp.full_like(x, -1),
  **dict.fromkeys(SCALARS, lambda x: jnp.full_like(x, jnp.nan)),
}
TYPES = {'label': np.int32, **dict.fromkeys(SCALARS, np.float32)}


def of(batch: Mapping[str, Any]) -> dict[str, Any]:
  """Returns those entries of a batch, or of clips, that are conditions."""
  return {name: x for name, x in batch.items() if name in NULL}


def rest(batch: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the other entries."""
  return {name: x for name, x in batch.items() if name not in NULL}


def arrays(cond: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns conditions that may be lists, in the types of the network."""
  return {name: np.asarray(x, TYPES[name]) for name, x in cond.items()}


def null(cond: Mapping[str, Array['b ...']]) -> dict[str, Array['b ...']]:
  """Returns the null value of every condition."""
  return {name: NULL[name](x) for name, x in cond.items()}


def without(cond: Mapping[str, Array['b ...']]) -> dict[str, Array['b ...']]:
  """Returns what guidance contrasts conditions with: null, but for scalars."""
  return null(cond) | {k: x for k, x in cond.items() if k in SCALARS}


def drop(
  cond: Mapping[str, Array['b ...']],
  key: jax.Array,
  shares: Mapping[str, float],
) -> dict[str, Array['b ...']]:
  """Replaces conditions by their null values, each by itself.

  Args:
    cond: the conditions.
    key: of the step.
    shares: of the rows that lose each condition; none of those left out.
  """
  dropped = {}
  for name, x in cond.items():
    # Labels were the first condition: their key is that of earlier runs.
    own = key
    if name != 'label':
      own = jax.random.fold_in(key, zlib.crc32(name.encode()))
    gone = jax.random.bernoulli(own, shares.get(name, 0.0), x.shape[:1])
    gone = gone.reshape(-1, *(1,) * (x.ndim - 1))
    dropped[name] = jnp.where(gone, NULL[name](x), x)
  return dropped
