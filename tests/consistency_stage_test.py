"""A run that ends with a consistency stage: its teacher, and what it makes.

Two minutes: bash launch/test.sh -m slow tests/consistency_stage_test.py
"""

import json
import shutil

from etils import epath
import numpy as np
import pytest
import tiny_config
import tiny_train

from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.config import schema
from vdm.evaluation import averages
from vdm.models import safetensors
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import teacher
from vdm.training import writer

STEPS = (2, 4)  # Of the two stages.

pytestmark = pytest.mark.slow


def make_config(data_root, finished_run):
  config = tiny_config.make_config(data_root)
  config.autoencoder.load = str(finished_run)
  config.score.update(every=0, best='none')
  config.train.update(order=('image', 'few_steps'), snapshot_every=0)
  config.consistency.update(times=2, steps=2)
  config.stages.image.steps = STEPS[0]
  config.stages.few_steps = schema.stage(
    objective='consistency',
    steps=STEPS[1],
    frames=2,
    resolution=16,
    batch=8,
    warmup=1,
    learning_rate=1e-3,
  )
  return config


@pytest.fixture(scope='module')
def runs(data_root, finished_run, tmp_path_factory):
  """(folder of a run nobody stopped, of one stopped inside of the stage)."""
  config = make_config(data_root, finished_run)
  whole, stopped = map(tmp_path_factory.mktemp, ('whole', 'stopped'))
  assert train.train(config, whole) == 0
  # After the image stage's steps, the border, and two more steps.
  tiny_train.train_until(config, stopped, polls=STEPS[0] + 1 + 2)
  assert train.train(config, stopped) == 0
  return epath.Path(whole), epath.Path(stopped)


def test_a_resumed_stage_is_the_uninterrupted_one(runs):
  resumed = [r for r in writer.read_rows(runs[1]) if 'resumed_from' in r]
  assert [row['resumed_from'] for row in resumed] == [STEPS[0] + 2]
  states = [trees.flatten(tiny_train.restored(folder)) for folder in runs]
  losses = [
    [row['loss'] for row in writer.read_rows(folder) if 'loss' in row]
    for folder in runs
  ]
  assert losses[0] == losses[1] and len(losses[0]) == sum(STEPS)
  videos = [
    np.load(folder / 'final/samples.npz', allow_pickle=False)['videos']
    for folder in runs
  ]
  np.testing.assert_array_equal(*videos)
  assert states[0].keys() == states[1].keys()
  for name, leaf in states[0].items():
    np.testing.assert_array_equal(leaf, states[1][name], err_msg=name)


def test_the_teacher_is_the_average_of_the_stage_before(runs):
  average = tiny_train.restored(runs[0], STEPS[0])['ema']['0.100']
  folder = runs[0] / teacher.FOLDER
  found = safetensors.parse((folder / teacher.WEIGHTS).read_bytes())
  assert found.keys() == average.keys()
  for name, leaf in average.items():
    np.testing.assert_array_equal(found[name], leaf, err_msg=name)
  facts = json.loads((folder / teacher.FACTS).read_text())
  assert (facts['step'], facts['width']) == (STEPS[0], 0.10)
  last = trained.load(runs[0]).params
  moved = [
    np.abs(x - average[name]).max() for name, x in trees.flatten(last).items()
  ]
  assert max(moved) > 1e-4


def test_it_is_sampled_in_few_steps_without_guidance(runs):
  model = trained.load(runs[0])
  assert model.stage.objective == 'consistency'
  options = model.config.sample
  assert (options.method, options.steps) == ('consistency', 2)
  assert (options.guidance, options.eta) == (1.0, 0.0)
  made_with = json.loads((runs[0] / 'final/samples.json').read_text())
  assert made_with['method'] == 'consistency' and made_with['steps'] == 2
  assert made_with['guidance'] == 1.0
  rows = {k for row in writer.read_rows(runs[0]) for k in row}
  assert {'val_loss', 'val_loss_labelled/logsnr_+0'} <= rows
  # What the run was configured with is of its other stage.
  config = schema.complete(trained.load_config(runs[0]))
  assert (config.sample.method, config.sample.guidance) == ('ddim', 2.0)


def test_other_averages_are_those_that_it_keeps(runs):
  found = averages.compare(runs[0], (0.05, 0.10), num=4)
  assert found['best'] in (0.05, 0.10)
  assert np.isfinite(list(found['losses']['0.05'].values())).all()
  with pytest.raises(ValueError, match='keeps averages of width 0.050, 0.100'):
    trained.load(runs[0], ema=0.07)


@pytest.fixture(scope='module')
def parts(data_root, finished_run):
  """(config, objective, mesh) of the stage."""
  config = make_config(data_root, finished_run)
  config.train.update(order=('few_steps',), init_from=str(finished_run))
  mesh = sharding.make_mesh()
  stage = config.stages.few_steps
  return config, objectives.make_objective(config, stage, mesh), mesh


def test_a_damaged_teacher_is_refused(runs, parts, tmp_path):
  _, objective, mesh = parts
  folder = epath.Path(
    shutil.copytree(runs[0] / teacher.FOLDER, tmp_path / 'teacher')
  )
  teacher.load(tmp_path, objective, mesh)
  data = bytearray((folder / teacher.WEIGHTS).read_bytes())
  data[-1] ^= 1
  (folder / teacher.WEIGHTS).write_bytes(bytes(data))
  with pytest.raises(errors.UsageError, match='is not what was written'):
    teacher.load(tmp_path, objective, mesh)
  (folder / teacher.FACTS).unlink()
  with pytest.raises(errors.UsageError, match='missing or damaged'):
    teacher.load(tmp_path, objective, mesh)


def test_another_run_can_be_the_teacher(parts, runs, finished_run):
  config, objective, _ = parts
  model = trained.load(finished_run)
  params, source = teacher.from_source(config, objective, model.fingerprint)
  for name, leaf in trees.flatten(model.params).items():
    np.testing.assert_array_equal(trees.flatten(params)[name], leaf)
  assert (source['step'], source['width']) == (model.step, 0.10)
  with pytest.raises(errors.UsageError, match='set config.autoencoder.load='):
    teacher.from_source(config, objective, 'another')
  config = config.copy_and_resolve_references()
  config.diffusion.prediction = 'flow'
  with pytest.raises(errors.UsageError, match='config.diffusion.prediction=v'):
    teacher.from_source(config, objective, model.fingerprint)
  config.train.init_from = str(runs[0])
  with pytest.raises(errors.UsageError, match='a consistency model already'):
    teacher.from_source(config, objective, model.fingerprint)
