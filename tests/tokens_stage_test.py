"""A whole run of masked tokens, and every command that reads one.

Two minutes: bash launch/test.sh -m slow tests/tokens_stage_test.py
"""

import json

from etils import epath
import numpy as np
import pytest
import tiny_config
import tiny_train

from vdm import generate
from vdm import train
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.config import schema
from vdm.diffusion import rollouts
from vdm.evaluation import averages
from vdm.evaluation import diagnosis
from vdm.planning import report as plan
from vdm.planning import targets
from vdm.publishing import export
from vdm.reporting import run_page
from vdm.reporting import run_record
from vdm.sampling import task_plan
from vdm.training import writer

STEPS = (3, 6)  # Of the two stages.

pytestmark = pytest.mark.slow


def make_config(data_root):
  config = tiny_config.make_config(data_root)
  config.autoencoder.update(
    bottleneck='fsq', levels=(8, 5, 3), channels=3, time_factor=2
  )
  config.model.kind = 'transformer'
  config.model.transformer.update(width=16, depth=1, vocabulary=40)
  config.train.update(order=('autoencoder', 'video'), snapshot_every=3)
  config.stages.autoencoder.frames = 2
  config.stages.video = schema.stage(
    objective='tokens',
    steps=STEPS[1],
    frames=4,
    resolution=16,
    batch=8,
    warmup=1,
    learning_rate=1e-2,
    frame_levels=dict(shared=0.5, context=0.5),
  )
  return config


@pytest.fixture(scope='module')
def runs(data_root, tmp_path_factory):
  """(folder of a run nobody stopped, of one stopped inside of the stage)."""
  config = make_config(data_root)
  whole, stopped = map(tmp_path_factory.mktemp, ('whole', 'stopped'))
  assert train.train(config, whole) == 0
  # After the autoencoder's steps, the border, and two more steps.
  tiny_train.train_until(config, stopped, polls=STEPS[0] + 1 + 2)
  assert train.train(config, stopped) == 0
  return epath.Path(whole), epath.Path(stopped)


def test_a_resumed_stage_is_the_uninterrupted_one(runs):
  resumed = [r for r in writer.read_rows(runs[1]) if 'resumed_from' in r]
  assert [row['resumed_from'] for row in resumed] == [STEPS[0] + 2]
  states = [trees.flatten(tiny_train.restored(folder)) for folder in runs]
  assert states[0].keys() == states[1].keys()
  for name, leaf in states[0].items():
    np.testing.assert_array_equal(leaf, states[1][name], err_msg=name)
  videos = [
    np.load(folder / 'final/samples.npz', allow_pickle=False)['videos']
    for folder in runs
  ]
  np.testing.assert_array_equal(*videos)
  assert videos[0].shape == (8, 4, 16, 16, 3)


def test_its_log_has_losses_by_the_share_that_is_hidden(runs):
  names = {name for row in writer.read_rows(runs[0]) for name in row}
  assert {'loss/masked_0.75_to_1', 'accuracy', 'val_loss'} <= names
  assert {'val_loss/masked_0.5', 'val_loss_labelled/masked_1'} <= names
  assert not any('logsnr' in name or 'kept_from' in name for name in names)
  assert {'small_score/motion', 'small_score/panel'} <= names
  assert (runs[0] / 'samples').exists()
  made_with = json.loads((runs[0] / 'final/samples.json').read_text())
  assert (made_with['method'], made_with['steps']) == ('unmask', 2)


def test_given_frames_and_longer_videos_come_from_the_run(runs):
  model = trained.load(runs[0])
  make = generate.make_generator(model.config, model.stage)
  given = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3), 'uint8')
  videos = make.samples(
    model.params,
    model.frozen,
    {'label': [1, 2]},
    [0, 1],
    rollouts.Task(frames=8, given=(0, 1)),
    given,
  )
  assert videos.shape == (2, 8, 16, 16, 3)
  # What the autoencoder makes of the given ones, whatever follows.
  padded = np.concatenate([given, given], axis=1)
  shown = make.reconstruct(model.frozen, padded)[:, :2]
  assert np.abs(videos[:, :2].astype(int) - shown).max() <= 1
  with pytest.raises(ValueError, match='History guidance shows'):
    task_plan.make(
      model.config,
      model.stage,
      rollouts.Task(given=(0, 1), history_guidance=2.0),
    )


def test_an_export_makes_the_same_videos(runs, tmp_path):
  folder = epath.Path(tmp_path / 'export')
  export.write(runs[0], folder, export.Options(dtype='float32', samples=1))
  card = (folder / 'README.md').read_text()
  assert 'model of masked video tokens' in card and 'unmask, 2 steps' in card
  assert ', temperature 1)' in card
  found = []
  for source in (runs[0], folder):
    model = trained.load(source)
    make = generate.make_generator(model.config, model.stage)
    found.append(make.samples(model.params, model.frozen, {'label': [3]}, [7]))
  np.testing.assert_array_equal(*found)


def test_it_is_reported_planned_and_averaged(runs, data_root):
  record = run_record.read(runs[0])
  page = run_page.make(record)
  assert 'training loss by share of masked tokens' in page
  assert 'masked tokens that are told right' in page
  config = make_config(data_root)
  target = targets.parse('h100')
  found = plan.make(config, [target], compile_seconds=0, data_seconds=0)
  assert found['stages']['video']['tflop'] > 0
  assert 'video' in plan.text(found)
  best = averages.compare(runs[0], (0.05, 0.07, 0.10), num=4)
  assert np.isfinite(list(best['losses']['0.07'].values())).all()


def test_a_diagnosis_of_noise_is_refused(runs):
  with pytest.raises(errors.UsageError, match='fills in masked tokens'):
    diagnosis.diagnose(runs[0])
