"""Tokens of codes: the values of several channels, as one number.

A code has a digit for each channel, of which channel c takes L_c. Where the
product of all L_c is small, a code is one token. Else neighbouring channels
make groups with a token each, so that a network can have one logit for every
value of a token (the factorisation of MAGVIT-v2, Yu et al., 2310.05737):
8 x 8 x 8 x 5 x 5 x 5 = 64 000 codes are a token of 512 and one of 125.
"""

from collections.abc import Sequence
import math

from etils.array_types import IntArray
import jax.numpy as jnp
import numpy as np

from vdm.models import layers

Groups = tuple[tuple[int, ...], ...]  # The levels of each group's channels.


def group(levels: Sequence[int], largest: int) -> Groups:
  """Returns the fewest groups of neighbouring channels.

  Args:
    levels: number of digits of each channel.
    largest: number of values of a token; a channel with more is alone.
  """
  groups = []
  for count in levels:
    if groups and math.prod(groups[-1]) * count <= largest:
      groups[-1] += (count,)
    else:
      groups.append((count,))
  return tuple(groups)


def sizes(groups: Groups) -> tuple[int, ...]:
  """Returns the number of values of each group's token."""
  return tuple(math.prod(levels) for levels in groups)


def pack(digits: IntArray['*b c'], groups: Groups) -> IntArray['*b g']:
  """Returns the int32 tokens of codes; the first digit counts ones."""
  found, start = [], 0
  for levels in groups:
    part = digits[..., start : start + len(levels)].astype(jnp.int32)
    places = np.cumprod([1, *levels[:-1]])
    found.append((part * layers.along_channels(places, part)).sum(-1))
    start += len(levels)
  return jnp.stack(found, axis=-1)


def unpack(tokens: IntArray['*b g'], groups: Groups) -> IntArray['*b c']:
  """Inverts `pack`."""
  found = []
  for i, levels in enumerate(groups):
    token = tokens[..., i : i + 1]
    places = layers.along_channels(np.cumprod([1, *levels[:-1]]), token)
    found.append(token // places % layers.along_channels(levels, token))
  return jnp.concatenate(found, axis=-1)
