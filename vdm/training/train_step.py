"""One training step, as a function that is compiled once for each shape.

  rows     = objective.draw(batch, key, n)     randomness of the global batch
  gradient = sum over devices and parts of d total / d params, over the global
             count
  update   clipping, AdamW or Muon, averages; of the trained parameters alone

All randomness of a step is drawn for the global batch before devices take their
rows of it and process them in parts, so neither changes anything but memory.
The state is held in few arrays, see `packing`.

A step whose loss or gradient is not finite is skipped: parameters, moments,
their counts and the averages keep their values, to the bit. The number of the
step, and with it the data and the schedule, still advance.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict
import numpy as np
import optax

from vdm.common import power_averages
from vdm.common import trees
from vdm.multihost import arrays
from vdm.training import ema
from vdm.training import objectives
from vdm.training import optim
from vdm.training import packing
from vdm.training import sharding
from vdm.training import stages
from vdm.training.train_state import ema_name
from vdm.training.train_state import TrainState


def make_train_step(
  options: ConfigDict,
  stage: ConfigDict,
  objective: objectives.Objective,
  layout: packing.Layout,
  kind: int,
  mesh: jax.sharding.Mesh,
  state: TrainState,
) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
  """Returns the jitted step of a stage.

  Args:
    options: `config.optim`.
    stage: the stage's config.
    objective: see `objectives.Objective`.
    layout: how the state is packed.
    kind: of the layout's kinds of step; which parameters it may change.
    mesh: see `sharding.make_mesh`.
    state: packed TrainState of arrays or abstract arrays.

  Returns:
    step(state, frozen, batch, n, key) -> (state, metrics), where n counts the
    stage's steps from 0, key is the stage's, and metrics is a dict of
    (sum, count) pairs and of scalars; `skipped` is 1 if the step was skipped.
    `state` is donated. It can be lowered with abstract arguments, for devices
    that this machine does not have.
  """
  state_sharding = sharding.tree_sharding(mesh, state)
  copies = arrays.replicated(mesh)

  @functools.partial(
    jax.jit,
    donate_argnums=0,
    in_shardings=(
      state_sharding,
      copies,
      arrays.batch_sharding(mesh),
      copies,
      copies,
    ),
    out_shardings=(state_sharding, copies),
  )
  def train_step(state, frozen, batch, n, key):
    grads, total, count, sums = gradient(
      stage, objective, layout, kind, mesh, state.params, frozen, batch, n, key
    )
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(total) & jnp.isfinite(norm)
    grads = optim.clip(grads, norm, options.clip_norm)
    factor = optim.learning_rate(stage, n)
    live = {group: state.params[group] for group in grads}
    slots = {group: state.opt_state[group] for group in grads}
    rates = {group: layout[group].rate for group in grads}
    live, slots = optim.update(
      options, stage, factor, grads, slots, live, rates
    )
    averages = {}
    for width in options.ema:
      name, exponent = ema_name(width), power_averages.gamma(width)
      averages[name] = dict(state.ema[name])
      for group, values in live.items():
        averages[name][group] = {
          path: ema.update(
            state.ema[name][group][path], value, slots[group].count, exponent
          )
          for path, value in values.items()
        }
    new_state = TrainState(
      params={**state.params, **live},
      opt_state={**state.opt_state, **slots},
      ema=averages,
    )
    new_state = select(finite, new_state, state)
    metrics = {
      **sums,
      'loss': (total, count),
      'grad_norm': norm,
      'param_norm': optax.global_norm([new_state.params[g] for g in grads]),
      'learning_rate': factor * stage.learning_rate,
      'skipped': 1 - finite.astype(jnp.int32),
    }
    return new_state, metrics

  return train_step


def trained_by(
  stage: ConfigDict, objective: objectives.Objective, params: dict[str, Any]
) -> list[list[str]]:
  """Returns the paths that a step on clips trains, and one on single frames.

  Args:
    stage: the stage's config.
    objective: its objective.
    params: nested dict of arrays, or of abstract ones.
  """
  alone, patterns = stage.frames == 1, objective.excluded_paths
  on_clips = stages.trained_paths(params, stage, patterns(alone))
  if alone or stage.image_fraction:
    return [on_clips, stages.trained_paths(params, stage, patterns(True))]
  # There is no step on single frames, which might train nothing.
  return [on_clips, stages.without(on_clips, patterns(True))]


def abstract_arguments(
  mesh: jax.sharding.Mesh,
  state: TrainState,
  frozen: dict[str, Any],
  batch: dict[str, Any],
) -> tuple[Any, ...]:
  """Returns what a step takes, as shapes with dtypes and shardings.

  Args:
    mesh: see `sharding.make_mesh`.
    state: of arrays or abstract arrays.
    frozen: the autoencoder, likewise.
    batch: of the global batch's shapes, likewise.
  """
  copies, rows = arrays.replicated(mesh), arrays.batch_sharding(mesh)
  others = (frozen, batch, np.int32(0), jax.eval_shape(jax.random.key, 0))
  return sharding.abstract(
    (state, *others),
    (
      sharding.tree_sharding(mesh, state),
      *(
        jax.tree.map(lambda _, where=where: where, tree)
        for tree, where in zip(others, (copies, rows, copies, copies))
      ),
    ),
  )


def select(
  finite: jax.Array, new_state: TrainState, state: TrainState
) -> TrainState:
  """Returns the new state, or the old one if the step is skipped.

  It fuses with the loops that write the state: see benchmarks/skipping.py.
  """
  return jax.tree.map(
    lambda new, old: jnp.where(finite, new, old), new_state, state
  )


def gradient(
  stage: ConfigDict,
  objective: objectives.Objective,
  layout: packing.Layout,
  kind: int,
  mesh: jax.sharding.Mesh,
  params: dict[str, dict[str, jax.Array]],
  frozen: dict[str, Any],
  batch: dict[str, jax.Array],
  n: jax.Array,
  key: jax.Array,
) -> tuple[
  dict[str, dict[str, jax.Array]], jax.Array, jax.Array, dict[str, Any]
]:
  """Returns the gradient of one step; see `make_train_step`.

  Args:
    stage: the stage's config.
    objective: its objective.
    layout: of params.
    kind: of the step: which groups to differentiate by.
    mesh: devices that the batch is split over.
    params: {group: {name: array}}.
    frozen: the autoencoder that the objective works in.
    batch: dict of global arrays.
    n: which step of the stage.
    key: the stage's.

  Returns:
    ({group: {name: gradient of total / count}}, total, count, sums).
  """
  trained = packing.selected(layout, kind)
  specs = sharding.tree_specs(mesh, params)
  grad_specs = {group: specs[group] for group in trained}

  def of_own_rows(params, frozen, rows):
    """Of one device: parameters come whole, and sums of all rows go."""
    flat = packing.split(layout, sharding.gather(params, specs))
    live = {path: flat[path] for path in packing.paths(trained)}

    def total_loss(live, rows):
      merged = trees.unflatten({**flat, **live})
      total, count, sums = objective.loss(merged, frozen, rows)
      return total, (count, sums)

    def grad_fn(rows):
      (total, (count, sums)), grads = jax.value_and_grad(
        total_loss, has_aux=True
      )(live, rows)
      return packing.join(trained, grads), (total, count, sums)

    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    grads, sums = accumulate(grad_fn, rows, stage.accumulate, unroll=on_cpu)
    return sharding.add_up(mesh, (grads, sums), (grad_specs, whole))

  rows = objective.draw(batch, jax.random.fold_in(key, n), n)
  whole = PartitionSpec()
  grads, (total, count, sums) = jax.shard_map(
    of_own_rows,
    mesh=mesh,
    in_specs=(specs, whole, arrays.batch_sharding(mesh).spec),
    out_specs=(grad_specs, whole),
    check_vma=False,
  )(params, frozen, rows)
  return jax.tree.map(lambda g: g / count, grads), total, count, sums


def accumulate(
  grad_fn: Callable[..., Any],
  rows: dict[str, jax.Array],
  parts: int,
  *,
  unroll: bool,
) -> Any:
  """Returns the sum of what a function returns for parts of the rows.

  Args:
    grad_fn: rows -> tree of sums over them.
    rows: tree of arrays [b ...]; part p is every `parts`-th of them.
    parts: number of parts.
    unroll: without a loop. On a CPU the gradients of convolutions in a loop
      take a slow path: 14 times the time of those outside.
  """
  if parts == 1:
    return grad_fn(rows)

  def split(x):
    x = x.reshape(-1, parts, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0)

  rows = jax.tree.map(split, rows)

  def one_part(carry, part):
    return jax.tree.map(jnp.add, carry, grad_fn(part)), None

  shapes = jax.eval_shape(grad_fn, jax.tree.map(lambda x: x[0], rows))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(one_part, zeros, rows, unroll=parts if unroll else 1)[0]
