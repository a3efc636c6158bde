"""The best checkpoint: chosen by score, kept, found again by a reader."""

import math
import shutil
import types

from etils import epath
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


def test_what_improves():
  best = best_policy.Best()
  assert best.improves([], score(9.0)['score'])
  best.note(3, score(2.0))
  for value, better in ((2.5, False), (2.0, True), (1.0, True)):
    assert best.improves([3], score(value)['score']) == better
  assert not best.improves([3], score(math.nan)['score'])
  assert not best.improves([], score(math.inf)['score'])
  assert best.improves([3], score(5.0, 'consistency/other')['score'])
  assert best.improves([], score(5.0)['score'])  # 3 is no longer there.


def save(store, step, value):
  meta = {'step': step}
  if value is not None:
    meta |= score(value)
  store.save(step, {'ema': {'w': np.full(3, step)}}, meta)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """States of steps 5 and 6, and the best of 1 to 6, restarted after 3."""
  run = epath.Path(tmp_path_factory.mktemp('run'))
  values = {1: 5.0, 2: 1.0, 3: 2.0, 4: 3.0, 5: None, 6: 4.0}
  for steps in ((1, 2, 3), (4, 5, 6)):
    with manager.Checkpoints(run / 'best', by_score=True) as store:
      for step in steps:
        save(store, step, values[step])
    with manager.Checkpoints(run / 'checkpoints', keep=2) as store:
      for step in steps:
        save(store, step, None)
  return run


def test_the_best_is_kept_apart_from_the_latest(run):
  names = {
    folder: {path.name for path in (run / folder).iterdir() if path.is_dir()}
    for folder in ('best', 'checkpoints')
  }
  assert names == {'best': {'2'}, 'checkpoints': {'5', '6'}}


def test_a_reader_finds_them(run):
  assert run_folder.choose_step(run, 'best') == (run / 'best', 2)
  assert run_folder.choose_step(run, '2') == (run / 'best', 2)
  assert run_folder.choose_step(run, 'latest') == (run / 'checkpoints', None)
  assert run_folder.choose_step(run, '6') == (run / 'checkpoints', 6)
  assert run_folder.read_meta(run, 2)['score']['value'] == 1.0
  assert run_folder.read_meta(run, 5) == {'step': 5}
  with pytest.raises(FileNotFoundError, match='the steps 2, 5, 6, not 3'):
    run_folder.choose_step(run, '3')
  with pytest.raises(ValueError, match="'newest' names no checkpoint"):
    run_folder.choose_step(run, 'newest')


def test_by_default_no_checkpoint_is_chosen_by_a_score():
  assert schema.default().score.best == 'none'


@pytest.mark.parametrize('best', ['none', 'motion'])
def test_a_score_is_no_reason_to_save_the_state(best, tmp_path):
  config = schema.default()
  config.score.best = best
  stage = schema.stage(steps=10)
  state = types.SimpleNamespace(ema={'0.100': {'w': np.ones(2)}}, params={})
  with stage_saver.make_best(config, tmp_path) as store:
    saver = stage_saver.StageSaver(
      config,
      stages.Span('video', stage, 0, 10),
      'fingerprint',
      None,
      store,
      counters.Counters(10),
      types.SimpleNamespace(flush=lambda: None),
    )
    assert not saver.due(3, logged=False)
    for step, value in ((3, 1.5), (6, 2.0)):
      saver.save_best(step, state, {'small_score/motion': value})
    saver.save_best(9, state, {})
  if best == 'none':
    assert not list(tmp_path.iterdir())
    with pytest.raises(
      FileNotFoundError, match='by a score.*config.score.best set to .*motion'
    ):
      run_folder.choose_step(epath.Path(tmp_path), 'best')
  else:
    assert run_folder.read_meta(tmp_path, 3) == {
      'stage': 'video',
      'objective': 'diffusion',
      'dataset': 'fingerprint',
      **score(1.5),
    }
    with manager.Checkpoints(tmp_path / 'best', read_only=True) as store:
      assert store.steps() == [3]


def test_parameters_without_averages_are_kept_with_the_best(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(
    stage_saver.image_model_rules, 'constant_patterns', lambda _: ('^image/',)
  )
  config = schema.default()
  config.score.best = 'motion'
  params = {'image': {'w': np.ones(2)}, 'temporal': {'w': np.zeros(3)}}
  state = types.SimpleNamespace(
    ema={'0.1': {'temporal/w': np.ones(3)}}, params=params
  )
  with stage_saver.make_best(config, tmp_path) as store:
    saver = stage_saver.StageSaver(
      config,
      stages.Span('video', schema.stage(steps=10), 0, 10),
      'fingerprint',
      None,
      store,
      counters.Counters(10),
      types.SimpleNamespace(flush=lambda: None),
    )
    saver.save_best(3, state, {'small_score/motion': 1.5})
  with manager.Checkpoints(tmp_path / 'best', read_only=True) as store:
    _, trees, _ = store.restore({'params': None, 'ema': None}, 3)
  np.testing.assert_equal(trees['params'], {'image': {'w': np.ones(2)}})
  assert list(trees['ema']['0.1']) == ['temporal/w']


@pytest.mark.parametrize('failing', ['states', 'best'])
def test_a_save_that_failed_is_told_at_the_next_step(
  failing, mount, monkeypatch
):
  """Not at the next save, which of the best can be an hour later."""
  small_disk = epath.Path(mount('4m'))
  usage = shutil.disk_usage(small_disk)._replace(free=2**40)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  rng = np.random.default_rng(0)
  big = {'w': rng.standard_normal(2**20)}  # 8 MiB, no zeros.
  config = schema.default()
  config.score.best = 'motion'
  with (
    pytest.raises(manager.CheckpointError, match='step 3 .*make room'),
    manager.Checkpoints(small_disk / 'checkpoints') as store,
    stage_saver.make_best(config, small_disk) as best,
  ):
    saver = stage_saver.StageSaver(
      config,
      stages.Span('video', schema.stage(steps=10), 0, 10),
      'fingerprint',
      store,
      best,
      counters.Counters(10),
      types.SimpleNamespace(flush=lambda: None),
    )
    saver.check()
    {'states': store, 'best': best}[failing].save(
      3, {'ema': big}, score(1.5) if failing == 'best' else {}
    )
    while True:
      saver.check()


def test_a_corrupt_step_is_never_the_best(run, tmp_path):
  copy = epath.Path(shutil.copytree(run, tmp_path / 'copy'))
  (copy / 'best/2/meta/metadata').write_text('{')
  with pytest.raises(FileNotFoundError, match='no checkpoint that was chosen'):
    run_folder.choose_step(copy, 'best')


def test_what_is_later_than_a_resumed_step_is_made_again(run, tmp_path):
  copy = epath.Path(shutil.copytree(run, tmp_path / 'copy'))
  with manager.Checkpoints(copy / 'best', by_score=True) as store:
    store.forget_after(2)
    assert store.best() == 2
    store.forget_after(1)
    assert store.best() is None
    save(store, 2, 1.25)
  assert run_folder.read_meta(copy, 2)['score']['value'] == 1.25
