"""Other averages of snapshots, against what they were kept of."""

import json

from etils import epath
import numpy as np
import pytest

from vdm import trained
from vdm.checkpoints import manager
from vdm.common import power_averages
from vdm.common import trees
from vdm.models import safetensors
from vdm.trained import run_folder
from vdm.trained import snapshots

UPDATES, EVERY = 240, 20


def history(seed):
  """A parameter's values: it learns, with noise."""
  random = np.random.default_rng(seed)
  learned = 1 - np.exp(-4 * np.arange(UPDATES)[:, None] / UPDATES)
  noise = random.normal(size=(UPDATES, 30)) * 0.05
  return random.normal(size=30) * learned + np.cumsum(noise, axis=0) / 4


def average(values, width, count):
  of = power_averages.Average(power_averages.gamma(width), count)
  return power_averages.weights(of, 1, count) @ values[:count]


@pytest.fixture
def workdir(tmp_path):
  """Snapshots of three parameters: the second is frozen half of the time."""
  folder = epath.Path(tmp_path)
  for step in range(EVERY, UPDATES + 1, EVERY):
    counts = {'a': step, 'b': max(step - UPDATES // 2, 0), 'c': 0}
    averages = {
      f'{width:.3f}': {
        path: np.float32(average(history(ord(path)), width, count))
        if count
        else np.full(30, 7.0, np.float32)
        for path, count in counts.items()
      }
      for width in (0.05, 0.10)
    }
    snapshots.write(folder, step, averages, counts, {})
  return folder


@pytest.mark.parametrize('width', [0.07, 0.15])
def test_a_width_is_made_of_others(workdir, width):
  found = snapshots.reconstruct(workdir, width, UPDATES)
  for path, count in (('a', UPDATES), ('b', UPDATES // 2)):
    expected = average(history(ord(path)), width, count)
    error = np.linalg.norm(found[path] - expected)
    assert error < 0.01 * np.linalg.norm(expected)
  np.testing.assert_allclose(found['c'], 7.0, rtol=1e-6)


def test_steps_after_the_checkpoint_are_left_out(workdir):
  found = snapshots.reconstruct(workdir, 0.07, UPDATES - 1)
  expected = average(history(ord('a')), 0.07, UPDATES - EVERY)
  np.testing.assert_allclose(found['a'], expected, atol=0.01)
  snapshots.forget_after(workdir, 50)
  assert snapshots.steps(workdir) == [20, 40]
  assert len(list((workdir / snapshots.FOLDER).iterdir())) == 4


def test_a_width_that_is_too_narrow_for_them_is_doubted(workdir, caplog):
  snapshots.reconstruct(workdir, 0.01, UPDATES)
  assert 'train.snapshot_every' in caplog.text


def test_a_run_keeps_what_other_widths_are_made_of(finished_run):
  run = trained.load(finished_run, 0.07)
  assert run.config.sample.ema == 0.07
  with manager.Checkpoints(
    finished_run / 'checkpoints', read_only=True
  ) as store:
    step, kept, _ = store.restore_item('ema')
  assert snapshots.steps(run.workdir)[-1] == step
  for width in (0.05, 0.10):
    found = snapshots.reconstruct(run.workdir, width, step)
    assert found.keys() == kept[f'{width:.3f}'].keys()
    for path, x in kept[f'{width:.3f}'].items():
      np.testing.assert_allclose(found[path], x, atol=1e-5)
  # Between the two that are kept, and no copy of either.
  low, high = (kept[name] for name in ('0.050', '0.100'))
  changed = 0
  for path, x in trees.flatten(run.params).items():
    distance = np.linalg.norm(high[path] - low[path])
    changed += distance > 1e-6
    assert np.linalg.norm(x - low[path]) <= distance + 1e-5
  assert changed
  info = run.workdir / snapshots.FOLDER / f'{step:08d}.json'
  assert json.loads(info.read_text())['widths'] == ['0.050', '0.100']


def test_a_step_of_which_there_is_a_snapshot_alone_is_read(finished_run):
  run = trained.load(finished_run)
  early = trained.load(finished_run, checkpoint='9')
  assert (early.step, early.stage) == (9, run.stage)
  file = finished_run / snapshots.FOLDER / '00000009.safetensors'
  stored = safetensors.parse(file.read_bytes())
  width = f'{run.config.sample.ema:.3f}'
  for path, x in trees.flatten(early.params).items():
    np.testing.assert_allclose(x, stored[f'{width}/{path}'], atol=1e-5)
  meta = run_folder.read_meta(finished_run, 9)  # An export asks for it.
  of_state = run_folder.read_meta(finished_run, 12)
  assert meta == {name: of_state[name] for name in meta}
  assert set(meta) == {'stage', 'objective', 'dataset'}
  worse = trained.load_worse(run, '9')
  assert worse.step == 9
  with pytest.raises(ValueError, match='at step 5 it makes 1 frame'):
    trained.load_worse(run, '5')  # The end of the stage of images.
  with pytest.raises(FileNotFoundError, match='steps 5, 7, 9, 11, 12, not 8'):
    trained.load(finished_run, checkpoint='8')


def test_a_snapshot_of_an_earlier_version_is_refused(workdir):
  with pytest.raises(FileNotFoundError, match='step 20 .*earlier version'):
    snapshots.read_meta(workdir, 20)


def test_without_snapshots_the_widths_are_named(finished_run, monkeypatch):
  monkeypatch.setattr(snapshots, 'steps', lambda workdir: [])
  with pytest.raises(ValueError, match='0.050, 0.100, not 0.070.*snapshot'):
    trained.load(finished_run, 0.07)
