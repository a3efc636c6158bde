"""What a network is told of the small videos that it enlarges, when sampled.

In training `latent_clips` does the same with small versions of its clips; the
clips that are shown and scored have theirs by `with_small`.
"""

from collections.abc import Callable
import functools
from typing import Any
import zlib

from etils.array_types import Array, IntArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm.common import sizes
from vdm.config import cascade_rules
from vdm.diffusion import cascade
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.sampling import keys as streams


def own_seeds(seeds: IntArray[' n'], stage: ConfigDict) -> IntArray[' n']:
  """Returns seeds of a network that enlarges what the same seeds have made.

  The noise that it starts from would else begin with that of the small video,
  and not be independent of what it is told.

  Args:
    seeds: of the videos.
    stage: of the network: frames and size are larger than of what it enlarges.
  """
  names = (f'{seed} {stage.frames} {sizes.of(stage)}' for seed in seeds)
  return np.asarray([zlib.crc32(x.encode()) for x in names], np.uint32)


def with_small(
  model: ConfigDict, clips: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Returns clips, with their small versions where a network is told these.

  Args:
    model: `config.model`.
    clips: with 'video', uint8 [n t h w 3].

  Raises:
    ValueError: the clips are not divisible by the factors of `model.low`.
  """
  if not cascade_rules.is_told(model):
    return clips
  low = model.low
  small = cascade.shrink(clips['video'], low.space_factor, low.time_factor)
  return clips | {cascade.SMALL: small}


def make_teller(
  config: ConfigDict, encode: Callable[..., Any]
) -> Callable[..., dict[str, Array['n ...']]]:
  """Returns (frozen, cond, seeds, number) -> cond, with small videos encoded.

  `small` becomes `low` and `low_noise`, see `conditions`. For a network that
  is told none it returns `cond`.

  Args:
    config: the run's; `sample.low_noise` is the sigma of the noise.
    encode: see `coders.make`.
  """
  if not cascade_rules.is_told(config.model):
    return lambda frozen, cond, seeds, number=0: cond
  low, sigma = config.model.low, config.sample.low_noise

  @jax.jit
  def tell(frozen, small, seeds, number):
    keys = streams.of_window(seeds, number)
    levels = jnp.full(len(small), process.level_of_sigma(sigma))
    return cascade.tell(
      small,
      levels,
      process.fold_in(keys, streams.LOW),
      functools.partial(encode, frozen),
      low.space_factor,
      low.time_factor,
    )

  def told(frozen, cond, seeds, number=0):
    others = {k: x for k, x in cond.items() if k != cascade.SMALL}
    return others | tell(frozen, cond[cascade.SMALL], seeds, number)

  return told


def make_coders(
  config: ConfigDict, encode: Callable[..., Any], decode: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns (encode, decode) of what the network makes.

  That are the latents of clips or, with `model.low.residual`, what these have
  beyond the latents of their enlarged small versions.

  Args:
    config: the run's.
    encode: see `coders.make`.
    decode: likewise.

  Returns:
    (frozen, uint8 clips) -> latents, and (frozen, latents, cond) -> uint8
    clips, with 'small' in `cond` where there is any.
  """
  low = config.model.low
  if not low.residual:
    return encode, lambda frozen, z, cond: decode(frozen, z)
  factors = low.space_factor, low.time_factor

  @jax.jit
  def encode_missing(frozen, video):
    z, of = encode(frozen, video), functools.partial(encode, frozen)
    return cascade.missing(z, video, of, *factors)

  @jax.jit
  def complete(frozen, z, small):
    known = encode(frozen, cascade.enlarge(small, *factors))
    video = decode(frozen, cascade.completed(z, known))
    return cascade.consistent(video, small, low.space_factor)

  return (
    encode_missing,
    lambda frozen, z, cond: complete(frozen, z, cond[cascade.SMALL]),
  )


def of_window(
  cond: dict[str, Any], window: rollouts.Window, length: int, time: int
) -> dict[str, Any]:
  """Returns the conditions of a window of longer videos.

  Args:
    cond: of the videos; 'small', if it is there, is whole.
    window: in frames of the large video.
    length: of the window, in these frames.
    time: every so-many-th of them is in the small video.
  """
  if cascade.SMALL not in cond:
    return cond
  first = window.start // time
  small = cond[cascade.SMALL][:, first : first + length // time]
  return cond | {cascade.SMALL: small}


def problem(
  config: ConfigDict,
  stage: ConfigDict,
  cond: dict[str, Any],
  frames: int,
) -> str:
  """Returns why videos cannot be made as large as asked, or ''.

  Args:
    config: the run's.
    stage: the stage's.
    cond: the videos' conditions.
    frames: of the videos that are made.
  """
  if not cascade_rules.is_told(config.model):
    return ''
  low = config.model.low
  if cascade.SMALL not in cond:
    return (
      'The network enlarges smaller videos: give it some, by --low or as the '
      'next of a --chain.'
    )
  small, size = cond[cascade.SMALL].shape[1:4], sizes.of(stage)
  wanted = (
    frames / low.time_factor,
    *(x // low.space_factor for x in size),
  )
  if small != wanted:
    return (
      f'{frames} frames of {sizes.text(size)} px are made of '
      f'{wanted[0]:g} frames of {sizes.text(wanted[1:])} px, and the smaller '
      f'videos have {small[0]} of {sizes.text(small[1:])} px.'
    )
  for found in cascade_rules.noise_problems(
    config.model, config.sample.low_noise
  ):
    return found
  return ''
