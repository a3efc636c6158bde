"""The state a stage starts from: new, inherited or restored."""

from absl import logging
import jax
import jax.numpy as jnp

from vdm import generate
from vdm.checkpoints import manager
from vdm.training import objectives
from vdm.training import optim
from vdm.training import resume
from vdm.training import sharding
from vdm.training import train_state


def fresh(config, objective, key, clips, mesh):
  """A new objective's state, split over the mesh.

  Args:
    config: the run's; `train.init_from` names a run to take parameters of.
    objective: see `objectives.Objective`.
    key: of the initial values.
    clips: dict of training clips, for what is fitted to them.
    mesh: see `sharding.make_mesh`.
  """
  params = objective.init(key, clips)
  if config.train.init_from and objective.inherits:
    params = inherit(config.train.init_from, params)

  def create(params):
    return train_state.create(config, params)

  shardings = sharding.tree_sharding(mesh, jax.eval_shape(create, params))
  return jax.jit(create, out_shardings=shardings)(params)


def inherit(workdir, params):
  """Takes over what fits of another run's average, and says what did not."""
  old = optim.flatten(generate.load_run(workdir).params)
  new = optim.flatten(params)
  fits = {p for p in new if p in old and old[p].shape == new[p].shape}
  for title, paths in {
    'inherited': fits,
    'new': new.keys() - old.keys(),
    'of another shape there, so new': (new.keys() & old.keys()) - fits,
    'left behind': old.keys() - new.keys(),
  }.items():
    logging.info('%d parameters %s: %s', len(paths), title, sorted(paths))
  return optim.unflatten(
    {p: jnp.asarray(old[p]) if p in fits else new[p] for p in new}, params
  )


def restore(config, store, mesh, fingerprint, accept=False):
  """The newest sound checkpoint of a run.

  Args:
    config: the run's.
    store: its `manager.Checkpoints`.
    mesh: to split the state over, whatever mesh it was saved from.
    fingerprint: of the training data; the run's must be the same.
    accept: unless this is true.

  Returns:
    (step, span, state), or (0, None, None) where there is none.

  Raises:
    ResumeError: the run is on other data, or its stage is gone or shorter.
    CheckpointError: there are checkpoints, and all are damaged.
  """
  while (step := store.latest()) is not None:
    meta = store.read_meta(step)
    resume.check_data(meta['dataset'], fingerprint, accept)
    span = resume.span_of(config, step, meta['stage'])
    objective = objectives.make_objective(config, span.stage, mesh)
    like = jax.eval_shape(
      lambda params: train_state.create(config, params),
      objective.abstract_params(),
    )
    abstract = sharding.abstract(like, sharding.tree_sharding(mesh, like))
    try:
      _, items, _ = store.restore(abstract._asdict(), step)
    except manager.CheckpointError:
      continue  # Named in the log; `latest` passes it over from now on.
    return step, span, train_state.TrainState(**items)
  if store.steps():
    raise manager.CheckpointError(
      f'Every checkpoint in {store.directory} is damaged: bring one back '
      'from a copy, or start again in another --workdir.'
    )
  return 0, None, None
