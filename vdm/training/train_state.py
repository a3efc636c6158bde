"""What a training step changes, and the values it starts from."""

from collections.abc import Sequence
import re
from typing import Any, NamedTuple
import zlib

from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vdm import trained
from vdm.common import trees
from vdm.training import objectives
from vdm.training import optim
from vdm.training import sharding


class TrainState(NamedTuple):
  """All that a checkpoint holds.

  Every leaf is float32 or a count, except for parameters that no stage trains,
  which may be in the dtype of the computation.

  Attributes:
    params: nested dict of arrays.
    opt_state: {path: optim.Slot}, of the parameters that some stage trains.
    ema: {name of the width: {path: array}}, the averages of the same ones.
  """

  params: dict[str, Any]
  opt_state: dict[str, optim.Slot]
  ema: dict[str, dict[str, Any]]


def stream(seed: int, *names: str) -> jax.Array:
  """Returns the key that a run's seed and these names determine."""
  key = jax.random.key(seed)
  for name in names:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
  return key


def create(
  options: ConfigDict, params: dict[str, Any], constant: Sequence[str] = ()
) -> TrainState:
  """Returns the state before the first step; averages start at `params`.

  Args:
    options: `config.optim`.
    params: nested dict of arrays.
    constant: patterns of the paths of those that no stage trains.
  """
  flat = {
    path: x
    for path, x in trees.flatten(params).items()
    if not any(re.search(pattern, path) for pattern in constant)
  }
  # Copies: a donated buffer must not be shared.
  ema = {ema_name(w): jax.tree.map(jnp.copy, flat) for w in options.ema}
  return TrainState(params, optim.init(options, trees.unflatten(flat)), ema)


def abstract(
  options: ConfigDict, objective: objectives.Objective, mesh: jax.sharding.Mesh
) -> TrainState:
  """Returns the shapes, dtypes and shardings of an objective's state."""
  state = jax.eval_shape(
    lambda params: create(options, params, objective.constant),
    objective.abstract_params(),
  )
  return sharding.abstract(state, sharding.tree_sharding(mesh, state))


def initialise(
  options: ConfigDict,
  objective: objectives.Objective,
  key: jax.Array,
  clips: dict[str, Any],
  mesh: jax.sharding.Mesh,
  init_from: str = '',
) -> TrainState:
  """Returns a new objective's state, sharded over the mesh.

  Args:
    options: `config.optim`.
    objective: whose parameters they are.
    key: of the initial values.
    clips: dict of training clips, for what is fitted to them.
    mesh: see `sharding.make_mesh`.
    init_from: run or export whose average to start from, if any.
  """
  params = objective.init(key, clips)
  if init_from and objective.inherits:
    params = inherit(init_from, params, objective.imported)
  return from_params(options, objective, params, mesh)


def from_params(
  options: ConfigDict,
  objective: objectives.Objective,
  params: dict[str, Any],
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Returns the state that begins with parameters, sharded over the mesh."""

  def create_state(params):
    return create(options, params, objective.constant)

  shardings = sharding.tree_sharding(mesh, jax.eval_shape(create_state, params))
  return jax.jit(create_state, out_shardings=shardings)(params)


def inherit(
  source: str, params: dict[str, Any], kept: Sequence[str] = ()
) -> dict[str, Any]:
  """Returns `params` with the values of another run's average where they fit.

  What was inherited and what was not is logged.

  Args:
    source: the run or export.
    params: nested dict of arrays.
    kept: patterns of the paths of those that stay as they are.
  """
  found = trained.load_trained(source, guided=False)
  old = {
    path: x
    for path, x in trees.flatten(found.params).items()
    if not any(re.search(pattern, path) for pattern in kept)
  }
  new = trees.flatten(params)
  fits = {p for p in new if p in old and old[p].shape == new[p].shape}
  for title, paths in {
    'inherited': fits,
    'new': new.keys() - old.keys(),
    'of another shape, so new': (new.keys() & old.keys()) - fits,
    'not used': old.keys() - new.keys(),
  }.items():
    logging.info('%d parameters %s: %s', len(paths), title, sorted(paths))
  return trees.unflatten(
    {p: jnp.asarray(old[p], new[p].dtype) if p in fits else new[p] for p in new}
  )


def ema_name(width: float) -> str:
  """Returns the name of an average in the state, from its sigma_rel."""
  return f'{width:.3f}'


def averaged(state: TrainState, width: float) -> dict[str, Any]:
  """Returns the parameters of one average, as the network takes them."""
  average = state.ema[ema_name(width)]
  flat = trees.flatten(state.params)
  return trees.unflatten({p: average.get(p, x) for p, x in flat.items()})
