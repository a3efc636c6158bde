"""Small scores while a run trains, and which laws its scenes are under."""

import functools
import types

import numpy as np
import pytest
import tiny_train

from vdm.config import schema
from vdm.data.synthetic import scenes
from vdm.evaluation import final_score
from vdm.metrics import laws
from vdm.metrics import suite


def make_config(**changes):
  config = schema.default()
  config.data.scenes.update(**changes)
  return config


@pytest.mark.parametrize(
  'changes, straight',
  [
    ({}, True),
    ({'rotation': True, 'ground': 'textured'}, True),
    ({'objects': 2}, False),
    ({'motion': 'gravity'}, False),
    ({'walls': True}, False),
  ],
)
def test_scenes_of_one_straight_mover_are_known_by_their_options(
  changes, straight
):
  assert final_score.is_synthetic(make_config(**changes))
  assert final_score.is_straight(make_config(**changes)) == straight


def test_other_videos_are_no_scenes():
  config = make_config()
  config.data.name = 'video_folder'
  assert not final_score.is_synthetic(config) and not final_score.is_straight(
    config
  )


@pytest.mark.parametrize('frames, stride', [(16, 1), (24, 1), (31, 2)])
@pytest.mark.parametrize('walls', [False, True])
def test_gravity_is_that_of_the_scenes_truth(frames, stride, walls):
  config = make_config(motion='gravity', frames=frames, walls=walls)
  config.data.stride = stride
  stage = schema.stage(resolution=64)
  world = final_score.world(config, stage)
  assert world.walls == walls and world.objects == 1
  scene = scenes.render(
    0, seed=0, resolution=64, frames=frames, motion='gravity', walls=walls
  )
  # Px from one frame of the clip to the next.
  velocity = stride * scene['truth']['velocity'][::stride, 0, 1]
  steps = np.diff(velocity)
  # Nothing bounces in most steps.
  assert world.gravity == pytest.approx(np.median(steps), rel=1e-4)


def test_a_judge_sees_the_faults_of_several_objects():
  rendered = [
    scenes.render(i, seed=0, resolution=64, frames=8, objects=2)
    for i in range(6)
  ]
  videos = np.stack([clip['frames'] for clip in rendered])
  labels = np.full(6, -1)
  rows = final_score.judge(
    functools.partial(laws.measure, world=laws.World(objects=2)),
    laws.summarise,
    videos,
    labels,
    {'video': videos, 'label': labels},
    videos,
  )
  assert rows['samples'] == rows['real'] == rows['reconstruction']
  assert rows['real']['acceleration'] < 0.1 < rows['shuffled']['acceleration']
  assert rows['mixed']['tracked'] < rows['real']['tracked'] == 1
  assert 'label_agreement' not in rows['real']


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
    assert frozen == 'autoencoder' and given is held_out
    return given['video'] if params == 'good' else given['video'] // 4

  small = final_score.SmallScore(make, held_out)
  good, bad = small('good', 'autoencoder'), small('bad', 'autoencoder')
  assert counted == [6, 6, 6]  # The held-out clips once.
  assert set(good) == {
    f'small_score/{name}' for name in (*suite.SUMMARY, 'flow_ratio')
  }
  assert good['small_score/flow_ratio'] == 1
  assert bad['small_score/appearance'] > 50 > good['small_score/appearance']


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
  config = tiny_train.make_config('')
  config.score.every = every
  objective = types.SimpleNamespace(samples=len if samples else None)
  stage = schema.stage(frames=frames)
  found = final_score.make_small_score(
    config, stage, objective, lambda: clips(held_out)
  )
  assert (found is not None) == scored
