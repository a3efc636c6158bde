"""What metrics take for clips."""

import numpy as np
import pytest

from vdm.metrics import rgb_clips


def test_each_clip_is_measured_by_itself():
  videos = np.arange(4, dtype=np.uint8)[:, None, None, None, None]
  videos = np.broadcast_to(videos, (4, 2, 5, 5, 3))
  found = rgb_clips.measure_each(
    lambda x: {'mean': x.mean(), 'frames': x.mean((1, 2, 3))}, videos
  )
  np.testing.assert_array_equal(found['mean'], np.arange(4))
  assert found['frames'].shape == (4, 2)


@pytest.mark.parametrize(
  'videos',
  [
    np.zeros((2, 4, 8, 8, 3)),
    np.zeros((4, 8, 8, 3), np.uint8),
    np.zeros((2, 4, 8, 8, 1), np.uint8),
  ],
)
def test_other_arrays_are_refused(videos):
  with pytest.raises(ValueError, match='uint8 clips'):
    rgb_clips.check(videos)
