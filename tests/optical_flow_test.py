"""Flow of known motion, and the measures that rest on it."""

import cv2
import numpy as np
import pytest

from vdm.metrics import optical_flow


def pattern(side, seed=0, cells=16):
  """A smooth coloured picture, larger than a frame."""
  random = np.random.default_rng(seed)
  small = random.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
  return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def moving(velocity, frames=5, side=64, seed=0):
  """A window that moves over a picture, the picture so the other way."""
  image = pattern(2 * side, seed)
  clips = []
  for t in range(frames):
    x, y = side / 2 - np.array(velocity) * t
    shift = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    clips.append(cv2.warpAffine(image, shift, (side, side)))
  return np.stack(clips)


@pytest.mark.parametrize('velocity', [(0.25, 0), (-1, 2), (3, -3), (6, 0)])
def test_translations_are_found_at_128_px(velocity):
  flow = optical_flow.compute(moving(velocity))
  assert flow.grey.shape == (5, 128, 128)
  inner = flow.forward[:, 32:-32, 32:-32]
  away = np.linalg.norm(inner - 2 * np.array(velocity), axis=-1)
  assert np.median(away) < 0.1
  assert flow.valid[:, 32:-32, 32:-32].mean() > 0.98


def test_backward_flow_and_following_lead_home():
  flow = optical_flow.compute(moving((2, 1)))
  home = optical_flow.warp(flow.backward[0], flow.forward[0]) + flow.forward[0]
  assert np.median(np.linalg.norm(home[32:-32, 32:-32], axis=-1)) < 0.1
  # What leaves the frame is not valid: 4 of 128 columns, 2 of 128 rows.
  assert flow.valid[0, 16:-16, -3:].mean() < 0.2


def test_a_picture_that_changes_has_no_flow_to_trust():
  video = np.stack([pattern(64, seed) for seed in range(4)])
  assert optical_flow.compute(video).valid.mean() < 0.5


@pytest.mark.parametrize(
  'shape, grey', [((3, 48, 64), (128, 171)), ((3, 256, 200), (164, 128))]
)
def test_the_shorter_side_is_128_px(shape, grey):
  video = np.zeros((*shape, 3), np.uint8)
  assert optical_flow.grey_frames(video).shape == (3, *grey)


def test_point_tracks_follow_a_point_and_end_at_the_border():
  flow = optical_flow.compute(moving((4, 0), frames=6))
  velocity, inside = optical_flow.point_tracks(flow, spacing=32)
  assert velocity.shape == (5, 16, 2) and inside[0].all()
  middle = velocity[:, 5]  # Row 1, column 1.
  np.testing.assert_allclose(middle[:3], [[8, 0]] * 3, atol=0.3)
  # The rightmost column starts 16 px from the border, at 8 px a frame.
  assert inside[1].all() and not inside[3, 3::4].any()
