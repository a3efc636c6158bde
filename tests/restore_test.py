"""The state a stage starts from: new, inherited or restored."""

import pathlib

from etils import epath
import jax
import numpy as np
import pytest
import tiny_runs

from vdm.checkpoints import manager
from vdm.common import trees
from vdm.config import schema
from vdm.config import serialize
from vdm.models.autoencoders import files
from vdm.training import objectives
from vdm.training import resume
from vdm.training import sharding
from vdm.training import stages
from vdm.training import train_state

# Reads that Orbax breaks off leave coroutines that pytest complains about.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)
DATA = 'd' * 64


def make_config():
  """An autoencoder's stage of 4 steps, then diffusion's."""
  config = tiny_runs.make_config()
  config.autoencoder.update(kind='kl', factor=4, channels=4)
  config.autoencoder.update(encoder_width=4, decoder_width=4, decoder_blocks=1)
  stage = dict(steps=4, frames=1, resolution=16)
  config.stages.codec = schema.stage(objective='autoencoder', **stage)
  config.stages.video.update(resolution=16, batch=2)
  config.train.order = ('codec', 'video')
  return config


def restore(config, store, mesh, fingerprint=DATA):
  made = {
    span.name: objectives.make_objective(config, span.stage, mesh)
    for span in stages.spans(config)
  }
  return resume.restore(config, made, store, mesh, fingerprint)


@pytest.fixture(scope='module')
def states():
  """(config, {stage: a new TrainState of it})."""
  config, mesh = make_config(), sharding.make_mesh()
  clips = tiny_runs.batch(rows=4, frames=1, size=16)
  found = {}
  for span in stages.spans(config):
    objective = objectives.make_objective(config, span.stage, mesh)
    key = jax.random.key(span.start)
    found[span.name] = train_state.initialise(
      config.optim, objective, key, clips, mesh
    )
  return config, found


def save(directory, states):
  """Checkpoints of both stages: at step 3 in the first, 6 in the second."""
  with manager.Checkpoints(directory) as store:
    for step, stage in ((3, 'codec'), (6, 'video')):
      meta = {'stage': stage, 'dataset': DATA}
      meta['objective'] = 'autoencoder' if stage == 'codec' else 'diffusion'
      store.save(step, states[stage]._asdict(), meta)


def damage(directory, step):
  """Flips a byte in the middle of a step's largest file of parameters."""
  folder = pathlib.Path(directory) / str(step) / 'params' / 'd'
  found = folder.iterdir()  # The arrays' own bytes.
  path = max(found, key=lambda path: path.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


def assert_same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_a_new_state_is_split_over_the_mesh(monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 64)
  config, mesh = tiny_runs.make_config(), sharding.make_mesh(4)
  objective = objectives.make_objective(config, config.stages.video, mesh)
  state = train_state.initialise(
    config.optim, objective, jax.random.key(0), None, mesh
  )
  shardings = sharding.tree_sharding(mesh, state)
  for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(shardings)):
    assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
  assert not all(
    leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params)
  )
  # The parameters do not depend on the mesh.
  one = train_state.initialise(
    config.optim, objective, jax.random.key(0), None, sharding.make_mesh()
  )
  assert_same(state, one)


def test_nothing_to_restore(tmp_path):
  with manager.Checkpoints(epath.Path(tmp_path)) as store:
    found = restore(make_config(), store, sharding.make_mesh())
  assert found == (0, None, None, {})


def test_the_newest_is_restored_on_any_mesh(states, tmp_path, monkeypatch):
  config, wanted = states
  directory = epath.Path(tmp_path)
  save(directory, wanted)
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 64)
  mesh = sharding.make_mesh(4)
  with manager.Checkpoints(directory) as store:
    step, span, state, _ = restore(config, store, mesh)
  assert (step, span.name, span.start) == (6, 'video', 4)
  assert isinstance(state, train_state.TrainState)
  assert_same(state, wanted['video'])
  shardings = sharding.tree_sharding(mesh, state)
  for leaf, where in zip(jax.tree.leaves(state), jax.tree.leaves(shardings)):
    assert leaf.sharding.is_equivalent_to(where, leaf.ndim)


def test_a_damaged_one_falls_back_across_the_border(states, tmp_path, caplog):
  """To a checkpoint of another objective, with other parameters."""
  config, wanted = states
  directory = epath.Path(tmp_path)
  save(directory, wanted)
  damage(directory, 6)
  mesh = sharding.make_mesh()
  with manager.Checkpoints(directory) as store:
    step, span, state, _ = restore(config, store, mesh)
  assert (step, span.name) == (3, 'codec')
  assert_same(state, wanted['codec'])
  assert f'{directory}/6' in caplog.text
  damage(directory, 3)
  with (
    manager.Checkpoints(directory) as store,
    pytest.raises(manager.CheckpointError, match='Every checkpoint in'),
  ):
    restore(config, store, mesh)


def test_other_data_and_too_few_steps_are_refused(states, tmp_path):
  config, wanted = states
  directory = epath.Path(tmp_path)
  save(directory, wanted)
  mesh = sharding.make_mesh()
  with manager.Checkpoints(directory) as store:
    with pytest.raises(resume.ResumeError, match='trained on data set ddd'):
      restore(config, store, mesh, 'e' * 64)
    shorter = config.copy_and_resolve_references()
    shorter.stages.video.steps = 1
    with pytest.raises(resume.ResumeError, match='at least 2 steps'):
      restore(shorter, store, mesh)


@pytest.fixture(scope='module')
def other_run(tmp_path_factory):
  """A pixel-space run's workdir and the averages it has saved."""
  workdir = epath.Path(tmp_path_factory.mktemp('other'))
  config = tiny_runs.make_config()
  mesh = sharding.make_mesh()
  objective = objectives.make_objective(config, config.stages.video, mesh)
  params = tiny_runs.randomise(objective.abstract_params())
  state = train_state.create(config.optim, params)
  average = {p: x + 1 for p, x in state.ema['0.100'].items()}
  state.ema['0.100'] = average
  serialize.save(config, workdir / 'config.json')
  frozen = tiny_runs.autoencoder()
  files.save(workdir / 'autoencoder', config.autoencoder, {}, frozen['stats'])
  with manager.Checkpoints(workdir / 'checkpoints') as store:
    meta = {'stage': 'video', 'objective': 'diffusion', 'dataset': DATA}
    store.save(5, state._asdict(), meta)
  return workdir, average


def test_a_new_run_inherits_what_fits_and_says_what_does_not(other_run, caplog):
  workdir, average = other_run
  config = tiny_runs.make_config()
  # Another number of classes, attention added, and no temporal convolutions.
  config.model.update(num_classes=7, attention_levels=(0,), temporal_depth=1)
  config.model.joint_attention = False
  config.train.init_from = str(workdir)
  mesh = sharding.make_mesh()
  objective = objectives.make_objective(config, config.stages.video, mesh)
  with caplog.at_level('INFO', logger='absl'):
    state = train_state.initialise(
      config.optim,
      objective,
      jax.random.key(3),
      None,
      mesh,
      config.train.init_from,
    )
  new = jax.jit(objective.init)(jax.random.key(3), None)
  new, found = trees.flatten(new), trees.flatten(state.params)
  fits = set(new) & set(average) - {'embed_label'}
  for path, value in found.items():
    wanted = average[path] if path in fits else new[path]
    np.testing.assert_array_equal(value, wanted, err_msg=path)
    # Averages begin at what was inherited, counts at 0.
    np.testing.assert_array_equal(state.ema['0.050'][path], wanted)
    assert state.opt_state[path].count == 0
  lines = [r.getMessage() for r in caplog.records if 'parameters' in r.msg]
  assert [line.split(':')[0] for line in lines] == [
    f'{len(fits)} parameters inherited',
    f'{len(set(new) - set(average))} parameters new',
    '1 parameters of another shape, so new',
    f'{len(set(average) - set(new))} parameters not used',
  ]
  assert "['embed_label']" in lines[2]
  assert 'middle_block/attention/norm/scale' in lines[1]
  assert 'temporal_joint' in lines[3]
