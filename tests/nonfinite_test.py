"""Counting skipped steps, and taking one down that can be done again."""

import json
import subprocess
import sys

from conftest import ROOT
from etils import epath
import jax
import numpy as np
import pytest
import tiny_config

from vdm import train
from vdm.checkpoints import manager
from vdm.config import serialize
from vdm.multihost import coordination
from vdm.training import nonfinite
from vdm.training import train_step
from vdm.training import writer


@pytest.fixture
def poisoned(monkeypatch):
  """Makes the loss of some clips NaN, from a stage's third step on.

  Every step's key is folded with its number, which is how it is known here.
  """
  gradient = train_step.gradient

  def with_nan(stage, objective, *args):
    def draw(batch, key, n):
      rows = objective.draw(batch, key, n)
      bad = (n >= 2) & (jax.numpy.arange(len(batch['label'])) == 5)
      return {**rows, 'factor': jax.numpy.where(bad, np.nan, 1.0)}

    def loss(params, frozen, rows):
      total, count, sums = objective.loss(params, frozen, rows)
      return total + rows['factor'].sum() - len(rows['factor']), count, sums

    return gradient(stage, objective._replace(draw=draw, loss=loss), *args)

  monkeypatch.setattr(train_step, 'gradient', with_nan)


def make_config(data_root):
  config = tiny_config.make_config(data_root)
  config.autoencoder.kind = 'identity'
  config.model.num_classes = 8
  config.train.order = ('image',)
  config.stages.image.steps = 8
  config.stages.image.resolution = 8
  return config


def test_a_run_skips_counts_and_goes_on(data_root, tmp_path, poisoned):
  config = make_config(data_root)
  config.sample.final = 2
  assert train.train(config, tmp_path) == 0
  rows = [r for r in writer.read_rows(tmp_path) if 'loss' in r]
  assert [r['skipped_steps'] for r in rows] == [0, 0, 1, 2, 3, 4, 5, 6]
  assert [np.isfinite(r['loss']) for r in rows] == [True] * 2 + [False] * 6
  with manager.Checkpoints(tmp_path / 'checkpoints', read_only=True) as store:
    assert store.read_meta()['skipped_steps'] == 6
    _, slots, _ = store.restore_item('opt_state')
  # The temporal branches are held in steps on single frames.
  assert {int(slot['count']) for slot in slots.values()} == {0, 2}


def test_a_run_that_diverges_leaves_a_step_that_is_done_again(
  data_root, tmp_path, monkeypatch
):
  """Through the commands: a rate so high that the parameters overflow."""
  config = make_config(data_root)
  config.train.max_skipped = 2
  config.stages.image.learning_rate = 1e20
  gather, waited = coordination.gather, []

  def noted(what, text=''):
    if what == 'writing the step that was skipped':
      waited.append(list((tmp_path / 'nonfinite').glob('*/step.json')))
    return gather(what, text)

  monkeypatch.setattr(coordination, 'gather', noted)
  with pytest.raises(nonfinite.NonFiniteError) as error:
    train.train(config, tmp_path)
  (folder,) = (tmp_path / 'nonfinite').iterdir()
  # All processes wait for the bundle before one of them ends the others.
  assert waited == [[folder / 'step.json']]
  assert str(folder) in str(error.value) and 'vdm.replay' in str(error.value)
  report = json.loads((folder / 'step.json').read_text())
  _, _, arrays = nonfinite.read(folder)
  # The row that was held back is written, too.
  assert writer.read_rows(tmp_path)[-1]['step'] == report['step'] - 1
  assert len(report['clips']) == 8
  assert arrays['rows/levels'].shape == (8, 1)
  command = [sys.executable, '-m', 'vdm.replay', '--bundle', str(folder)]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  assert 'The same non-finite step as in the run.' in done.stdout
  assert report['clips'][0]['id'] in done.stdout
  # With the parameters that it should have had it is sound, and says so.
  for name in arrays:
    if name.startswith('params/'):
      arrays[name] = np.zeros_like(arrays[name])
  config = serialize.load(folder / 'config.json')
  nonfinite.write(epath.Path(folder), config, report, arrays)
  lines, same = nonfinite.compare(
    report, *nonfinite.replay(folder, *nonfinite.read(folder))
  )
  assert not same and lines[-1] == 'It is finite here.'
