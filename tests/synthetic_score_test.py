"""Which laws scenes are under, and that faults are seen by them."""

import numpy as np
import pytest

from vdm.config import schema
from vdm.data.synthetic import captions
from vdm.data.synthetic import scenes
from vdm.evaluation import synthetic_score


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
  data = make_config(**changes).data
  assert synthetic_score.is_synthetic(data)
  assert synthetic_score.is_straight(data) == straight


def test_other_videos_are_no_scenes():
  data = make_config().data
  data.name = 'video_folder'
  assert not synthetic_score.is_synthetic(data)
  assert not synthetic_score.is_straight(data)
  assert synthetic_score.score(data, None, [], [], {}, []) == {}


@pytest.mark.parametrize('frames, stride', [(16, 1), (24, 1), (31, 2)])
@pytest.mark.parametrize('walls', [False, True])
def test_gravity_is_that_of_the_scenes_truth(frames, stride, walls):
  config = make_config(motion='gravity', frames=frames, walls=walls)
  config.data.stride = stride
  stage = schema.stage(resolution=64)
  world = synthetic_score.world(config.data, stage)
  assert world.walls == walls and world.objects == 1
  scene = scenes.render(
    0, seed=0, resolution=64, frames=frames, motion='gravity', walls=walls
  )
  # Px from one frame of the clip to the next.
  velocity = stride * scene['truth']['velocity'][::stride, 0, 1]
  steps = np.diff(velocity)
  # Nothing bounces in most steps.
  assert world.gravity == pytest.approx(np.median(steps), rel=1e-4)


@pytest.mark.parametrize('height, width', [(64, 112), (96, 64), (64, 64)])
def test_sizes_that_captions_name_are_of_the_shorter_side(height, width):
  """Scenes scale with it, so that the real clips show what is said of them."""
  size = {'resolution': height, 'width': width}
  rendered = [
    scenes.render(i, seed=0, frames=8, captions=True, **size) for i in range(12)
  ]
  random = np.random.default_rng(0)
  told = [
    captions.attributes(scene['truth'], min(height, width))
    for scene in rendered
  ]
  assert len({x.size for (x,) in told}) == 3
  told = [captions.render(x, 'plain', random) for x in told]
  videos = np.stack([scene['frames'] for scene in rendered])
  real = {
    'video': videos,
    'label': np.array([scene['label'] for scene in rendered]),
    'caption': told,
  }
  found = synthetic_score.score(
    make_config(captions=True, frames=8).data,
    schema.stage(**size),
    videos,
    real['label'],
    real,
    videos,
    told,
  )['captions']['samples']
  assert found['seen']['size'] > 0.9


def test_scores_see_the_faults_of_several_objects():
  rendered = [
    scenes.render(i, seed=0, resolution=64, frames=8, objects=2)
    for i in range(6)
  ]
  videos = np.stack([clip['frames'] for clip in rendered])
  labels = np.full(6, -1)
  rows = synthetic_score.score(
    make_config(objects=2).data,
    schema.stage(resolution=64),
    videos,
    labels,
    {'video': videos, 'label': labels},
    videos,
  )['laws']
  assert rows['samples'] == rows['real'] == rows['reconstruction']
  assert rows['real']['acceleration'] < 0.1 < rows['shuffled']['acceleration']
  assert rows['mixed']['tracked'] < rows['real']['tracked'] == 1
  assert 'label_agreement' not in rows['real']
