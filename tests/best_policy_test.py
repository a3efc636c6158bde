"""The best checkpoint: chosen by score, kept, found again by a reader."""

import pathlib
import shutil
import types

import numpy as np
import pytest

from vdm.checkpoints import best_policy
from vdm.checkpoints import manager
from vdm.config import schema
from vdm.trained import run_folder
from vdm.training import counters
from vdm.training import stage_saver
from vdm.training import stages


def score(value, measure='video/small_score/motion'):
  return {'score': {'measure': measure, 'value': value}}


def test_the_lowest_score_of_the_newest_measure_wins_and_the_later_of_two():
  best = best_policy.Best()
  for step, meta in {
    1: score(0.1, 'image/other'),
    2: score(3.0),
    3: score(2.0),
    4: {},
    5: score(2.0),
    6: score(4.0),
  }.items():
    best.note(step, meta)
  assert best.step(range(7)) == 5
  assert best.step([2, 4, 6]) == 2
  assert best.step([1]) == 1
  assert best.step([4]) is None
  best.note(5, {})  # Saved again, without one.
  assert best.step(range(7)) == 3


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Steps 1 to 6 of which the latest one is kept, restarted after 3."""
  folder = tmp_path_factory.mktemp('run')
  values = {1: 5.0, 2: 1.0, 3: 2.0, 4: 3.0, 5: None, 6: 4.0}
  for steps in ((1, 2, 3), (4, 5, 6)):
    with manager.Checkpoints(folder, keep=1) as store:
      for step in steps:
        meta = {'step': step}
        if values[step] is not None:
          meta |= score(values[step])
        store.save(step, {'params': {'w': np.full(3, step)}}, meta)
  return folder


def test_the_best_is_kept_beside_the_latest(folder):
  names = {path.name for path in pathlib.Path(folder).iterdir()}
  assert {name for name in names if name.isdigit()} == {'2', '6'}


def test_a_reader_finds_it(folder):
  with manager.Checkpoints(folder, read_only=True) as store:
    assert store.best() == 2 and store.latest() == 6
    assert run_folder.choose_step(store, 'best') == 2
    assert run_folder.choose_step(store, 'latest') is None
    assert run_folder.choose_step(store, '6') == 6
    with pytest.raises(FileNotFoundError, match='keeps the steps 2, 6, not 3'):
      run_folder.choose_step(store, '3')
    with pytest.raises(ValueError, match="'newest' names no checkpoint"):
      run_folder.choose_step(store, 'newest')


def test_by_default_no_checkpoint_is_chosen_by_a_score():
  assert schema.default().score.best == 'none'


@pytest.mark.parametrize('best', ['none', 'motion'])
def test_a_score_is_saved_only_where_one_is_to_be_chosen_by(best):
  class Store:
    saved = None

    def save(self, step, items, meta):
      self.saved = step, items, meta

  config = schema.default()
  if best != 'none':
    config.score.best = best
  stage = schema.stage(steps=10)
  saver = stage_saver.StageSaver(
    config.train,
    config.score.best,
    stages.Span('video', stage, 0, 10),
    'fingerprint',
    Store(),
    counters.Counters(10),
    types.SimpleNamespace(flush=lambda: None),
  )
  assert saver.due(3, logged=False, scored=True) == (best != 'none')
  state = types.SimpleNamespace(_asdict=dict)
  saver.save(3, state, {'small_score/motion': 1.5}, False)
  step, _, meta = saver._store.saved
  assert step == 3 and ('score' in meta) == (best != 'none')


def test_without_scores_there_is_no_best(tmp_path):
  with manager.Checkpoints(tmp_path) as store:
    store.save(1, {'params': {'w': np.ones(2)}}, {})
    store.wait()
    with pytest.raises(
      FileNotFoundError, match='has a score.*config.score.best set to .*motion'
    ):
      run_folder.choose_step(store, 'best')


def test_a_corrupt_step_is_never_the_best(folder, tmp_path):
  copy = pathlib.Path(shutil.copytree(folder, tmp_path / 'copy'))
  (copy / '2' / 'meta' / 'metadata').write_text('{')
  with manager.Checkpoints(copy, read_only=True) as store:
    assert store.best() == 6
