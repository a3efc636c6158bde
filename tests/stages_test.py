"""Stages: their steps, their single frames and what they train."""

import numpy as np
import pytest

from vdm.config import schema
from vdm.training import stages

PARAMS = {
  'embed_label': np.zeros((3, 4)),
  'stem': {'kernel': np.zeros((3, 3, 2, 4))},
  'block': {
    'spatial': {'kernel': np.zeros((4, 4)), 'film': {'kernel': np.zeros(4)}},
    'temporal_conv_0': {'kernel': np.zeros((4, 4))},
  },
}


def make_config():
  config = schema.default()
  config.stages.codec = schema.stage(objective='autoencoder', steps=7)
  config.stages.image = schema.stage(steps=4)
  config.stages.video = schema.stage(steps=5, frames=16, batch=2)
  config.stages.unused = schema.stage(steps=99)
  config.train.order = ('codec', 'image', 'video')
  return config


def test_spans_follow_the_order_without_gaps():
  found = [(s.name, s.start, s.stop) for s in stages.spans(make_config())]
  assert found == [('codec', 0, 7), ('image', 7, 11), ('video', 11, 16)]


@pytest.mark.parametrize('share', [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0])
def test_single_frames_are_spaced_evenly(share):
  stage = schema.stage(frames=8, image_fraction=share)
  chosen = [stages.on_single_frames(stage, n) for n in range(200)]
  for length in (1, 7, 10, 40, 200):
    for start in range(0, 201 - length, 3):
      count = sum(chosen[start : start + length])
      assert abs(count - length * share) < 1 + 1e-9
  image = schema.stage(frames=1, image_fraction=share)
  assert not any(stages.on_single_frames(image, n) for n in range(20))


def test_frozen_and_held_paths_are_left_out():
  stage = schema.stage(frozen=(r'^stem/', r'/spatial/kernel$'))
  assert stages.trained_paths(PARAMS, stage, ()) == [
    'block/spatial/film/kernel',
    'block/temporal_conv_0/kernel',
    'embed_label',
  ]
  assert stages.trained_paths(PARAMS, stage, ('temporal',)) == [
    'block/spatial/film/kernel',
    'embed_label',
  ]
  # A pattern that is held need not fit: the objective knows no network.
  free = stages.trained_paths(PARAMS, schema.stage(), ('^pca/',))
  assert len(free) == 5


def test_the_first_pattern_gives_the_factor():
  rates = (('^stem/', 0.5), ('kernel', 0.1), ('embed', 1.0))
  stage = schema.stage(frozen=('film',), rates=rates)
  assert stages.rates(PARAMS, stage) == {
    'block/spatial/kernel': 0.1,
    'block/temporal_conv_0/kernel': 0.1,
    'stem/kernel': 0.5,
  }
  assert stages.rates(PARAMS, schema.stage()) == {}
  for pattern in ('^stam/', 'film'):  # What is frozen learns nothing.
    stage = schema.stage(frozen=('film',), rates=((pattern, 0.1),))
    with pytest.raises(ValueError, match=f'rates has .*{pattern[1:]}.* no par'):
      stages.rates(PARAMS, stage)


def test_patterns_that_do_nothing_or_everything_are_refused():
  stage = schema.stage(frozen=(r'^stem/', r'^stam/'))
  with pytest.raises(
    ValueError, match=r"frozen='\^stam/' matches no parameter"
  ):
    stages.trained_paths(PARAMS, stage, ())
  with pytest.raises(ValueError, match='leaves nothing to train'):
    stages.trained_paths(PARAMS, schema.stage(frozen=('.',)), ())
  with pytest.raises(ValueError, match='leaves nothing to train'):
    stage = schema.stage(frozen=('embed', 'stem', 'spatial'))
    stages.trained_paths(PARAMS, stage, ('temporal',))


def test_a_border_says_what_it_does():
  codec, image, video = stages.spans(make_config())
  trained = ['embed_label', 'stem/kernel']  # 12 + 72 of 120 values.
  first = stages.describe(codec, None, PARAMS, trained)
  assert 'Stage codec: steps 0 to 7' in first[0]
  assert 'trains 84 of 120 parameters, 3 of 5 arrays frozen' in first[0]
  assert 'are new' in first[1]
  assert 'are new' in stages.describe(image, codec, PARAMS, trained)[1]
  last = stages.describe(video, image, PARAMS, trained)
  assert '16 frames of 64 px, batch 2' in last[0]
  assert ' 1 frame of 64 px' in first[0]
  assert 'carry over from image' in last[1]
  assert 'warms up again' in last[1] and len(last) == 2
  video.stage.rates = (('^stem/', 0.1),)
  slow = stages.describe(video, image, PARAMS, trained)
  assert slow[:2] == last and slow[2] == 'Learns at 0.1 times the rate: ^stem/.'
  video.stage.rates = ()
  # Inside of a stage it does not.
  (_, resumed) = stages.describe(video, video, PARAMS, trained)
  assert 'Resumed' in resumed and 'warms up' not in resumed
