"""What a stage is given to see."""

import numpy as np

from vdm.training import inputs


def test_single_frames_keep_the_label_of_their_clip():
  video = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
  batch = {'video': video, 'label': np.array([5, 7], np.int32)}
  frames = inputs.as_single_frames(batch)
  assert frames['video'].shape == (6, 1, 4, 4, 3)
  np.testing.assert_array_equal(frames['video'][4, 0], video[1, 1])
  assert frames['label'].tolist() == [5, 5, 5, 7, 7, 7]


def test_single_frames_of_cached_latents():
  mean = np.arange(2 * 3 * 2 * 2 * 4).reshape(2, 3, 2, 2, 4)
  batch = {'mean': mean, 'logvar': -mean, 'label': np.array([5, 7])}
  frames = inputs.as_single_frames(batch)
  np.testing.assert_array_equal(frames['mean'][5, 0], mean[1, 2])
  np.testing.assert_array_equal(frames['logvar'], -frames['mean'])
  assert frames['label'].tolist() == [5, 5, 5, 7, 7, 7]
