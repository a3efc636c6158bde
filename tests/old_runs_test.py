"""A run of an earlier version resumes: see tests/golden/make_run.py."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from vdm import train
from vdm.config import schema
from vdm.config import serialize
from vdm.data import builders
from vdm.preparation import datasets
from vdm.training import writer

GOLDEN = pathlib.Path(__file__).resolve().parent / 'golden' / 'run'
# Of the training, and not of the machine. Programs are compiled in other ways
# on other machines and versions: eight steps agree to far less than this.
TOLERANCE = dict(rtol=2e-3, atol=1e-5)


@pytest.fixture(scope='module')
def resumed(tmp_path_factory):
  """The folder, after the run went from where it was stopped to its end."""
  workdir = tmp_path_factory.mktemp('old')
  shutil.copytree(GOLDEN / 'stopped', workdir, dirs_exist_ok=True)
  config = schema.complete(serialize.load(workdir / 'config.json'))
  config.data.root = str(workdir / 'data')
  expected = json.loads((GOLDEN / 'expected.json').read_text())
  source = builders.open_source(datasets.ensure(config.data), 'train')
  # Frames are stored as WebP, whose bytes depend on OpenCV's version.
  same_data = source.info['fingerprint'] == expected['dataset']
  assert train.train(config, workdir, accept_changes=not same_data) == 0
  return workdir


def test_it_logs_what_the_run_logged_that_nothing_stopped(resumed):
  expected = json.loads((GOLDEN / 'expected.json').read_text())
  ours = writer.read_rows(resumed)
  assert [row['step'] for row in ours if 'resumed_from' in row] == [7]
  ours = [row for row in ours if 'resumed_from' not in row]
  assert [row['step'] for row in ours] == [
    row['step'] for row in expected['rows']
  ]
  for mine, theirs in zip(ours, expected['rows']):
    names = [
      name
      for name in theirs
      if name.startswith(('loss', 'grad', 'param_norm', 'learning', 'val_'))
    ]
    assert len(names) > 0 or 'small_score/motion' in theirs
    np.testing.assert_allclose(
      [mine[name] for name in names],
      [theirs[name] for name in names],
      **TOLERANCE,
      err_msg=f'step {theirs["step"]}',
    )


def test_the_interrupted_score_is_made_again(resumed):
  scored = [
    row['step']
    for row in writer.read_rows(resumed)
    if 'small_score/motion' in row
  ]
  assert scored == [7, 9, 10]


def test_it_ends_with_the_same_videos(resumed):
  expected = json.loads((GOLDEN / 'expected.json').read_text())
  with np.load(resumed / 'final/samples.npz', allow_pickle=False) as samples:
    assert abs(samples['videos'].mean() - expected['final_mean']) < 1.0
