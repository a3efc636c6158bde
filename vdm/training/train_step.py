"""One step of training, as a function that is compiled once for each shape.

  rows     = objective.draw(batch, key)        randomness of the global batch
  gradient = sum over parts of d total / d params, over the global count
  update   clipping, AdamW or Muon, averages; of the trained parameters alone

All randomness of a step is drawn for the global batch before it is worked
through in parts, so gradient accumulation changes nothing but memory.

A step whose loss or gradient is not finite is skipped: parameters, moments,
their counts and the averages stay what they were, to the bit. The number of
the step, and with it the data and the schedule, go on.
"""

import functools

import jax
import jax.numpy as jnp

from vdm.multihost import arrays
from vdm.training import ema
from vdm.training import optim
from vdm.training import sharding
from vdm.training.train_state import ema_name
from vdm.training.train_state import TrainState


def make_train_step(config, stage, objective, trained, mesh, state):
  """Compiles the step of a stage.

  Args:
    config: the run's.
    stage: the stage's.
    objective: see `objectives.Objective`.
    trained: paths of the parameters this step may change.
    mesh: see `sharding.make_mesh`.
    state: TrainState of arrays or abstract arrays.

  Returns:
    step(state, frozen, batch, n, key) -> (state, metrics), where n counts the
    stage's steps from 0, key is the stage's, and metrics is a dict of
    (sum, count) pairs and of scalars; `skipped` is 1 where the step was.
    `state` is donated. It can be lowered with abstract arguments, for devices
    that the host does not have.
  """
  trained = sorted(trained)  # One program, whatever order a set has.
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
      stage, objective, trained, mesh, state.params, frozen, batch, n, key
    )
    norm = global_norm(grads)
    sound = jnp.isfinite(total) & jnp.isfinite(norm)
    grads = optim.clip(grads, norm, config.optim.clip_norm)
    factor = optim.learning_rate(stage, n)
    flat = optim.flatten(state.params)
    live = {path: flat[path] for path in trained}
    slots = {path: state.opt_state[path] for path in trained}
    live, slots = optim.update(config.optim, stage, factor, grads, slots, live)
    averages = {}
    for width in config.optim.ema:
      name, exponent = ema_name(width), ema.gamma(width)
      averages[name] = dict(state.ema[name])
      for path, value in live.items():
        averages[name][path] = ema.update(
          state.ema[name][path], value, slots[path].count, exponent
        )
    new_state = TrainState(
      params=optim.unflatten({**flat, **live}, state.params),
      opt_state={**state.opt_state, **slots},
      ema=averages,
    )
    new_state = choose(sound, new_state, state)
    flat = optim.flatten(new_state.params)
    metrics = {
      **sums,
      'loss': (total, count),
      'grad_norm': norm,
      'param_norm': global_norm([flat[path] for path in trained]),
      'learning_rate': factor * stage.learning_rate,
      'skipped': 1 - sound.astype(jnp.int32),
    }
    return new_state, metrics

  return train_step


def choose(sound, new_state, state):
  """The new state, or the old one where the step is skipped.

  Part of the loops that write the state anyway: see benchmarks/skipping.py.
  """
  return jax.tree.map(
    lambda new, old: jnp.where(sound, new, old), new_state, state
  )


def gradient(stage, objective, trained, mesh, params, frozen, batch, n, key):
  """The gradient of one step, for `make_train_step`, which see.

  Args:
    stage: the stage's config.
    objective: its objective.
    trained: paths to differentiate by.
    mesh: the batch is split over.
    params: nested dict of arrays.
    frozen: what the objective works in.
    batch: dict of global arrays.
    n: which step of the stage.
    key: the stage's.

  Returns:
    ({path: gradient of total / count}, total, count, sums).
  """
  flat = optim.flatten(params)
  live = {path: flat[path] for path in trained}

  def total_loss(live, rows):
    merged = optim.unflatten({**flat, **live}, params)
    total, count, sums = objective.loss(merged, frozen, rows)
    return total, (count, sums)

  grads, (total, count, sums) = accumulate(
    jax.value_and_grad(total_loss, has_aux=True),
    live,
    objective.draw(batch, jax.random.fold_in(key, n)),
    stage.accumulate,
    arrays.batch_sharding(mesh),
  )
  return jax.tree.map(lambda g: g / count, grads), total, count, sums


def accumulate(grad_fn, params, rows, parts, rows_sharding):
  """Sums of gradients, totals and metrics over parts of the rows.

  Part p takes every `parts`-th row, so that each device's rows stay its own.
  """
  if parts == 1:
    (total, (count, sums)), grads = grad_fn(params, rows)
    return grads, (total, count, sums)

  def split(x):
    x = x.reshape(-1, parts, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0)

  rows = jax.tree.map(split, rows)

  def one_part(carry, part):
    part = jax.lax.with_sharding_constraint(
      part, jax.tree.map(lambda _: rows_sharding, part)
    )
    (total, (count, sums)), grads = grad_fn(params, part)
    return jax.tree.map(jnp.add, carry, (grads, (total, count, sums))), None

  shapes = jax.eval_shape(grad_fn, params, jax.tree.map(lambda x: x[0], rows))
  (total, (count, sums)), grads = shapes
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), (grads, (total, count, sums))
  )
  return jax.lax.scan(one_part, zeros, rows)[0]


def global_norm(tree):
  """Root of the sum of squares of all leaves, float32."""
  squares = [
    jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(sum(squares))
