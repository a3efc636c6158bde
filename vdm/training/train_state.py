"""What a training step changes, and how it begins."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vdm.training import optim


class TrainState(NamedTuple):
  """All that a checkpoint holds; every leaf float32 or a count.

  Attributes:
    params: nested dict of arrays.
    opt_state: {path: optim.Slot}.
    ema: {name of the width: {path: array}}, the averages.
  """

  params: Any
  opt_state: Any
  ema: Any


def create(config, params):
  """The state before the first step: averages begin at the live values."""
  flat = optim.flatten(params)
  # Copies, for a donated buffer must not be shared.
  ema = {ema_name(w): jax.tree.map(jnp.copy, flat) for w in config.optim.ema}
  return TrainState(params, optim.init(config.optim, params), ema)


def ema_name(width):
  """The name of an average in the state, from its sigma_rel."""
  return f'{width:.3f}'


def averaged(state, width):
  """The parameters of one average, as the network takes them."""
  return optim.unflatten(state.ema[ema_name(width)], state.params)
