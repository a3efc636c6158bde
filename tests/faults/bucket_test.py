"""Runs whose folder is in an emulated bucket end like one on a local disk.

The uninterrupted run that they are compared with, to the bit, is local.

  bash launch/test.sh tests/faults/bucket_test.py -m slow
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from etils import epath
import harness
import numpy as np
import pytest
import several
import tiny

from vdm.checkpoints import manager
from vdm.training import writer


class Starts:
  """Starts commands on `workdir`, a folder of a bucket."""

  def __init__(self, folder, cache, workdir):
    # A killed run may leave half a compiled program.
    self.cache = folder / f'{workdir.name}_cache'
    if not self.cache.exists():
      shutil.copytree(cache, self.cache)
    self.folder, self.workdir = folder, workdir

  def train(self, *options, workdir=None):
    """Starts to train; the output goes to a local file."""
    return harness.Trainer(
      self.folder / f'{self.workdir.name}_log',
      f'--workdir={workdir or self.workdir}',
      f'--config.data.root={self.folder / "data"}',
      *options,
      JAX_COMPILATION_CACHE_DIR=str(self.cache),
    )

  def call(self, module, *options):
    """Calls another command; returns (exit code, what it printed)."""
    environment = {'JAX_COMPILATION_CACHE_DIR': str(self.cache)}
    done = subprocess.run(
      [sys.executable, '-m', module, *options],
      cwd=harness.ROOT,
      env=os.environ | harness.QUICK | environment,
      capture_output=True,
      text=True,
      check=False,
    )
    return done.returncode, done.stdout + done.stderr

  def saved(self):
    """The steps whose save is complete."""
    folder = self.workdir / 'checkpoints'
    with manager.Checkpoints(folder, read_only=True) as store:
      return store.steps()


@pytest.fixture(scope='session')
def starts(bucket, reference):
  """`Starts` of a run by its name."""
  folder, cache, _ = reference
  return lambda name: Starts(folder, cache, epath.Path(bucket) / name)


def wait_for(run, happened, timeout=1200):
  """Waits until `happened()` is true of a run that has not ended."""
  deadline = time.monotonic() + timeout
  while not happened():
    assert run.process.poll() is None, run.end()
    if time.monotonic() > deadline:
      run.kill()
      raise TimeoutError(run.end())
    time.sleep(0.05)


def prints(run, pattern):
  """Whether a run has printed something."""
  return lambda: re.search(pattern, run.printed())


def check_end(run, workdir, wanted):
  """Checks that a run ends as the uninterrupted one did, to the bit."""
  assert run.wait() == 0, run.end()
  assert not harness.problems_of_result(harness.result(workdir), wanted)
  rows = writer.read_rows(workdir)
  steps = [row['step'] for row in rows if 'loss' in row]
  assert steps == list(range(1, harness.SPANS[-1].stop + 1))


@pytest.mark.slow
def test_killed_and_resumed_nothing_differs(starts, reference):
  starts = starts('killed')
  run = starts.train()
  # Early: the second start does the rest of the work.
  wait_for(run, prints(run, 'image 2/'))
  run.kill()
  saved = starts.saved()
  assert saved
  run = starts.train()
  check_end(run, starts.workdir, reference[2])
  assert harness.resumed_from(run) == saved[-1]
  assert not (starts.workdir / writer.NAME).exists()
  assert len(list(starts.workdir.glob(f'{writer.NAME}.*'))) == 2


@pytest.fixture(scope='session')
def finished(starts, reference):
  """`Starts` of a run that was killed as it saved, stopped, and then ended."""
  starts = starts('finished')
  checkpoints = starts.workdir / 'checkpoints'

  def saving():
    steps = checkpoints.iterdir() if checkpoints.exists() else []
    return any(not (step / 'commit_success.txt').exists() for step in steps)

  run = starts.train('--config.train.tensorboard=True')
  wait_for(run, lambda: starts.saved() and saving())
  run.kill()
  assert saving()
  saved = starts.saved()

  run = starts.train('--config.train.tensorboard=True')
  wait_for(run, prints(run, 'video 3/'))
  assert harness.resumed_from(run) == saved[-1]
  assert 'is a save that was interrupted; it is removed' in run.printed()
  run.kill(signal.SIGTERM)
  assert run.process.returncode == 75, run.end()
  logged = [row['step'] for row in writer.read_rows(starts.workdir)]
  assert starts.saved()[-1] == logged[-1]

  run = starts.train('--config.train.tensorboard=True')
  check_end(run, starts.workdir, reference[2])
  assert harness.resumed_from(run) == logged[-1]
  return starts


def videos(folder):
  data = io.BytesIO((epath.Path(folder) / 'samples.npz').read_bytes())
  with np.load(data, allow_pickle=False) as arrays:
    return arrays['videos']


@pytest.mark.slow
def test_events_of_all_starts_are_there(finished, tmp_path):
  paths = list(finished.workdir.glob('events*'))
  for path in paths:
    (tmp_path / path.name).write_bytes(path.read_bytes())
  from tensorboard.backend.event_processing import event_accumulator

  events = event_accumulator.EventAccumulator(
    str(tmp_path), size_guidance={'tensors': 0}
  ).Reload()
  steps = {event.step for event in events.Tensors('loss')}
  assert steps == set(range(1, harness.SPANS[-1].stop + 1))


@pytest.mark.slow
def test_sampling_from_the_bucket_and_into_it(finished, bucket, reference):
  common = ['--num=2', '--seed=3', '--steps=2']
  code, said = finished.call(
    'vdm.sample',
    f'--workdir={finished.workdir}',
    f'--out={bucket}/samples',
    *common,
  )
  assert code == 0, said
  code, said = finished.call(
    'vdm.sample', f'--workdir={reference[0] / "alone"}', *common
  )
  assert code == 0, said
  (local,) = (reference[0] / 'alone').glob('samples_from_step_*')
  np.testing.assert_array_equal(videos(f'{bucket}/samples'), videos(local))
  names = {path.name for path in local.iterdir()}
  assert {p.name for p in epath.Path(f'{bucket}/samples').iterdir()} == names
  # Into the run, and not a second time.
  for expected in (0, 2):
    code, said = finished.call(
      'vdm.sample', f'--workdir={finished.workdir}', *common
    )
    assert code == expected, said
  assert 'already holds samples' in said


@pytest.mark.slow
def test_evaluation_in_the_bucket(finished):
  options = [f'--workdir={finished.workdir}', '--num=8', '--training_clips=8']
  code, said = finished.call('vdm.evaluate', 'run', *options)
  assert code == 0, said
  folder = finished.workdir / 'evaluation/run'
  assert (folder / 'metrics_card.json').exists()
  assert (folder / 'nearest.mp4').exists()
  code, said = finished.call(
    'vdm.evaluate', 'autoencoder', f'--workdir={finished.workdir}', '--num=4'
  )
  assert code == 0, said
  assert (finished.workdir / 'evaluation/autoencoder/table.txt').exists()


@pytest.mark.slow
def test_another_run_starts_from_one_in_the_bucket(finished, starts):
  heir = starts('heir')
  run = heir.train(
    f'--config.train.init_from={finished.workdir}',
    f'--config.autoencoder.load={finished.workdir}',
    "--config.train.order=('image',)",
    '--config.stages.image.steps=1',
  )
  assert run.wait() == 0, run.end()
  name = 'autoencoder/weights.npz'
  weights = [(x.workdir / name).read_bytes() for x in (finished, heir)]
  assert weights[0] == weights[1]
  assert heir.saved() == [1]


@pytest.mark.slow
def test_a_corrupt_checkpoint_is_named_and_skipped(finished, reference):
  *_, before, last = finished.saved()
  folder = finished.workdir / 'checkpoints' / str(last) / 'params' / 'd'
  path = max(folder.iterdir(), key=lambda path: path.stat().length)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))
  run = finished.train()
  check_end(run, finished.workdir, reference[2])
  assert harness.resumed_from(run) == before
  named = rf'checkpoints/{last} (is not what|cannot be read).*is skipped'
  assert re.search(named, run.printed())
  assert (finished.workdir / f'checkpoints/{last}.damaged-0').exists()


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_replayed(starts):
  starts = starts('diverged')
  run = starts.train(
    '--config.stages.autoencoder.learning_rate=1e30',
    '--config.stages.autoencoder.steps=12',
    '--config.train.max_skipped=1',
  )
  assert run.wait() == 1, run.end()
  (bundle,) = (starts.workdir / 'nonfinite').iterdir()
  assert f'python -m vdm.replay --bundle {bundle}' in run.printed()
  code, said = starts.call('vdm.replay', f'--bundle={bundle}')
  assert code == 0, said
  assert f'Step {int(bundle.name[5:])}' in said
  assert tiny.get_config().train.order[0] in said


@pytest.mark.slow
def test_two_processes_share_a_bucket(starts, reference):
  starts, log = starts('several'), reference[0] / 'several_log'
  runs = harness.start_several(
    log,
    2,
    1,
    f'--workdir={starts.workdir}',
    f'--config.data.root={reference[0] / "data"}',
    JAX_COMPILATION_CACHE_DIR=str(starts.cache),
  )
  wait_for(runs[0], prints(runs[0], 'image 1/'))
  runs[0].process.send_signal(signal.SIGTERM)  # Both stop at the same step.
  assert [run.wait() for run in runs] == [75, 75], runs[0].end()
  saved = starts.saved()
  run = starts.train()
  assert run.wait() == 0, run.end()
  assert harness.resumed_from(run) == saved[-1]
  rows = harness.comparable(writer.read_rows(starts.workdir))
  wanted = reference[2].rows
  assert several.largest_difference(rows, wanted) < several.TOLERANCE
