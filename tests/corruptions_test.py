"""Each way to spoil clips does what it says, and the same every time."""

import cv2
import numpy as np
import pytest

from vdm.metrics import corruptions

RANDOM = np.random.default_rng(0)
CLIPS = RANDOM.integers(0, 256, (6, 8, 16, 12, 3), np.uint8)
OTHERS = RANDOM.integers(0, 256, CLIPS.shape, np.uint8)


def test_all_keep_shape_and_type_and_depend_on_the_seed_alone():
  sets = corruptions.every(CLIPS, OTHERS, seed=1)
  again = corruptions.every(CLIPS, OTHERS, seed=1)
  assert len(sets) == 10
  for name, videos in sets.items():
    assert videos.shape == CLIPS.shape and videos.dtype == np.uint8, name
    assert (videos != CLIPS).any(), name
    np.testing.assert_array_equal(videos, again[name], err_msg=name)


def test_frames_are_moved_and_not_changed():
  swapped = corruptions.swap_pairs(CLIPS)
  np.testing.assert_array_equal(swapped[:, [1, 0, 3, 2]], CLIPS[:, :4])
  odd = corruptions.swap_pairs(CLIPS[:, :5])
  np.testing.assert_array_equal(odd[:, 4], CLIPS[:, 4])
  repeated = corruptions.repeat_frames(CLIPS)
  np.testing.assert_array_equal(repeated[:, 1::2], CLIPS[:, ::2])
  frozen = corruptions.freeze(CLIPS)
  assert (frozen == CLIPS[:, 4:5]).all()


def test_cuts_and_fades_begin_here_and_end_there():
  cut = corruptions.cut(CLIPS, OTHERS)
  np.testing.assert_array_equal(cut[:, :4], CLIPS[:, :4])
  np.testing.assert_array_equal(cut[:, 4:], OTHERS[:, 4:])
  faded = corruptions.cross_fade(CLIPS, OTHERS)
  np.testing.assert_array_equal(faded[:, 0], CLIPS[:, 0])
  np.testing.assert_array_equal(faded[:, -1], OTHERS[:, -1])


def test_strengths_are_what_they_say():
  grey = np.full((4, 200, 16, 16, 3), 100, np.uint8)
  noise = corruptions.add_noise(grey, level=5.0).astype(float) - 100
  assert noise.std() == pytest.approx(5, rel=0.02)
  jitter = corruptions.jitter_luma(grey, share=0.06).astype(float)
  assert np.ptp(jitter, axis=(2, 3, 4)).max() == 0
  assert jitter.mean((2, 3, 4)).std() == pytest.approx(6, rel=0.1)


def test_hues_turn_to_the_end_and_nothing_else():
  red = np.zeros((1, 3, 2, 2, 3), np.uint8)
  red[..., 0] = 200
  np.testing.assert_array_equal(
    corruptions.drift_hue(red)[0, :, 0, 0],
    [[200, 0, 0], [200, 200, 0], [0, 200, 0]],
  )


def test_bending_moves_a_point_by_about_what_is_asked():
  image = np.zeros((1, 40, 65, 65, 3), np.uint8)
  cv2.circle(image[0, 0], (32, 32), 6, (255,) * 3, -1)
  image[:] = image[:, :1]
  bent = corruptions.jitter_elastic(image, px=1.5)[0, ..., 0].astype(float)
  places = np.arange(65)
  x = (bent.sum(1) * places).sum(1) / bent.sum((1, 2))
  assert 0.8 < (x - 32).std() < 2.2
