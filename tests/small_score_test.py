"""Small scores while a run trains."""

import types

import numpy as np
import pytest
import tiny_config

from vdm.config import schema
from vdm.evaluation import small_score
from vdm.metrics import suite


def clips(n=6, frames=4):
  random = np.random.default_rng(0)
  return {
    'video': random.integers(0, 256, (n, frames, 16, 16, 3), np.uint8),
    'label': np.arange(n) % 3,
  }


def test_small_scores_have_names_of_their_own_and_measure_once(monkeypatch):
  held_out = clips()
  counted = []
  measure = suite.measure
  monkeypatch.setattr(
    suite, 'measure', lambda x: counted.append(len(x)) or measure(x)
  )

  def make(params, frozen, given):
    assert frozen == {'params': {}} and given is held_out
    return given['video'] if params == 'good' else given['video'] // 4

  small = small_score.SmallScore(make, held_out)
  good, bad = small('good', {'params': {}}), small('bad', {'params': {}})
  assert counted == [6, 6, 6]  # The held-out clips once.
  assert set(good) == {
    f'small_score/{name}' for name in (*suite.SUMMARY, 'flow_ratio')
  }
  assert good['small_score/flow_ratio'] == 1
  assert bad['small_score/appearance'] > 50 > good['small_score/appearance']


def test_other_scores_stand_beside_its_own():
  held_out = clips()

  def more(params, frozen, given):
    assert (params, frozen) == ('model', {'params': {}}) and given is held_out
    return {'kept_from_8': 12.5}

  small = small_score.SmallScore(lambda *_: held_out['video'], held_out, more)
  found = small('model', {'params': {}})
  assert list(found)[-1] == 'small_score/kept_from_8'
  assert found['small_score/kept_from_8'] == 12.5
  assert found['small_score/motion'] < 1e-6


@pytest.mark.parametrize(
  'every, frames, samples, held_out, scored',
  [
    (2, 4, True, 6, True),
    (0, 4, True, 6, False),
    (2, 1, True, 6, False),
    (2, 4, False, 6, False),
    (2, 4, True, 3, False),
  ],
)
def test_where_there_is_nothing_to_score(
  every, frames, samples, held_out, scored
):
  config = tiny_config.make_config('')
  config.score.every = every
  objective = types.SimpleNamespace(samples=len if samples else None)
  stage = schema.stage(frames=frames)
  found = small_score.make_small_score(
    config.score, stage, objective, lambda: clips(held_out)
  )
  assert (found is not None) == scored
