"""What a denoiser is told about clips: a dict of arrays with a row a clip.

  label       int32 [b], a class; -1 for none
  words       int32 [b n], numbers of words as `common.vocabulary` has them;
              0 for none
  text        float32 [b n d], tokens of a pretrained text encoder
  text_mask   bool [b n], which tokens there are
  frame_rate  float32 [b], frames a second; NaN for unknown
  motion      float32 [b], frame widths a second; NaN for unknown
  small       uint8 [b s y x 3], a smaller video, see `cascade`, which becomes
  low         float32 [b t h w c], its noised latents, and
  low_noise   float32 [b], the log-SNR of that noise

Each condition but the last three, which are always told, has a null value,
which stands for not being told, and is dropped by itself in training: the
network then learns what guidance needs. Conditions of one group say one thing,
and are dropped together. Text without any token is the null of every network;
what stands for it in a published image model, the encoded empty prompt, is a
parameter of that network.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
import zlib

from etils.array_types import Array
import jax
import jax.numpy as jnp
import numpy as np

# Numbers of a clip. Guidance contrasts what is shown and keeps them, as Stable
# Video Diffusion does, unless it is asked to guide by them.
SCALARS = ('frame_rate', 'motion')


class Condition(NamedTuple):
  """One entry of the dict.

  Attributes:
    dtype: of its array.
    null: fills the rows that are not told; None for what always is.
    group: of conditions that are dropped together, with one share.
  """

  dtype: Any
  null: float | None
  group: str


CONDITIONS = {
  'label': Condition(np.int32, -1, 'label'),
  'words': Condition(np.int32, 0, 'text'),
  'text': Condition(np.float32, 0.0, 'text'),
  'text_mask': Condition(np.bool_, False, 'text'),
  **{name: Condition(np.float32, np.nan, name) for name in SCALARS},
  'small': Condition(np.uint8, None, 'low'),
  'low': Condition(np.float32, None, 'low'),
  'low_noise': Condition(np.float32, None, 'low'),
}


def of(batch: Mapping[str, Any]) -> dict[str, Any]:
  """Returns those entries of a batch, or of clips, that are conditions."""
  return {name: x for name, x in batch.items() if name in CONDITIONS}


def rest(batch: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the other entries."""
  return {name: x for name, x in batch.items() if name not in CONDITIONS}


def arrays(cond: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns conditions that may be lists, in the types of the network."""
  return {
    name: np.asarray(x, CONDITIONS[name].dtype) for name, x in cond.items()
  }


def null(cond: Mapping[str, Array['b ...']]) -> dict[str, Array['b ...']]:
  """Returns the null value of every condition."""
  return {name: _null_like(name, x) for name, x in cond.items()}


def _null_like(name, x):
  value = CONDITIONS[name].null
  return x if value is None else jnp.full_like(x, value)


def without(
  cond: Mapping[str, Array['b ...']], groups: Collection[str]
) -> dict[str, Array['b ...']]:
  """Returns the conditions with the null value for those of some groups."""
  return {
    name: _null_like(name, x) if CONDITIONS[name].group in groups else x
    for name, x in cond.items()
  }


def drop(
  cond: Mapping[str, Array['b ...']],
  key: jax.Array,
  shares: Mapping[str, float],
) -> dict[str, Array['b ...']]:
  """Replaces conditions by their null values, each group by itself.

  Args:
    cond: the conditions.
    key: of the step.
    shares: by group, of the rows that lose it; none of those left out.
  """
  dropped = {}
  for name, x in cond.items():
    group = CONDITIONS[name].group
    # Labels were the first condition: their key is that of earlier runs.
    own = key
    if group != 'label':
      own = jax.random.fold_in(key, zlib.crc32(group.encode()))
    gone = jax.random.bernoulli(own, shares.get(group, 0.0), x.shape[:1])
    gone = gone.reshape(-1, *(1,) * (x.ndim - 1))
    dropped[name] = jnp.where(gone, _null_like(name, x), x)
  return dropped
