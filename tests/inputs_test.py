"""What a stage is given to see."""

import numpy as np
import pytest
import tiny_config

from vdm import train
from vdm.config import schema
from vdm.training import inputs


def test_mirrored_directions_are_refused_before_the_first_step(
  data_root, tmp_path
):
  config = tiny_config.make_config(data_root)
  config.data.flip = True
  with pytest.raises(ValueError, match=r'right, down-right, down and 5 more'):
    train.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run/metrics.jsonl').exists()


@pytest.mark.parametrize(
  'changes, labels',
  [
    ({'data.flip': False}, ['left']),
    ({'model.num_classes': 0}, ['left']),
    ({'train.order': ('codec',)}, ['left']),
    ({}, []),
  ],
)
def test_what_may_be_mirrored(changes, labels):
  config = schema.default()
  config.data.flip, config.model.num_classes = True, 2
  config.stages.codec = schema.stage(objective='autoencoder')
  config.stages.video = schema.stage()
  config.train.order = ('codec', 'video')
  info = {'name': 'videos', 'directional_labels': labels or ['left']}
  with pytest.raises(ValueError, match='flip=True mirrors .* .left.: set'):
    inputs.check_flip(config, info)
  config.update_from_flattened_dict(changes)
  inputs.check_flip(config, info | {'directional_labels': labels})


def test_single_frames_keep_the_label_of_their_clip():
  video = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
  batch = {'video': video, 'label': np.array([5, 7], np.int32)}
  frames = inputs.as_single_frames(batch)
  assert frames['video'].shape == (6, 1, 4, 4, 3)
  np.testing.assert_array_equal(frames['video'][4, 0], video[1, 1])
  assert frames['label'].tolist() == [5, 5, 5, 7, 7, 7]
  first = inputs.as_single_frames(batch, 'first')
  np.testing.assert_array_equal(first['video'], video[:, :1])
  assert first['label'].tolist() == [5, 7]


def test_single_frames_of_cached_latents():
  mean = np.arange(2 * 3 * 2 * 2 * 4).reshape(2, 3, 2, 2, 4)
  batch = {'mean': mean, 'logvar': -mean, 'label': np.array([5, 7])}
  frames = inputs.as_single_frames(batch)
  np.testing.assert_array_equal(frames['mean'][5, 0], mean[1, 2])
  np.testing.assert_array_equal(frames['logvar'], -frames['mean'])
  assert frames['label'].tolist() == [5, 5, 5, 7, 7, 7]
