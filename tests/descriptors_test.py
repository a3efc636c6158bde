"""Vectors of clips against transforms and counts of another library."""

import cv2
import numpy as np
import pytest
from scipy import fft

from tests.optical_flow_test import moving
from vdm.metrics import descriptors
from vdm.metrics import optical_flow


def test_names_sizes_and_values():
  video = moving((1, 0), frames=4)
  found = descriptors.describe(video, optical_flow.compute(video))
  sizes = {name: vector.shape for name, vector in found.items()}
  assert sizes == {
    'motion': (32,),
    'spectrum': (24,),
    'texture': (12,),
    'appearance': (64,),
  }
  assert tuple(found) == descriptors.NAMES
  assert all(np.isfinite(vector).all() for vector in found.values())


def test_spectra_are_those_of_scipys_cosine_transform():
  grey = np.random.default_rng(0).integers(0, 256, (8, 32, 48), np.uint8)
  spectrum, texture = descriptors.spectra(grey)
  x = grey.astype(np.float64)
  power = fft.dctn(x, norm='ortho') ** 2
  single = np.stack([fft.dctn(frame, norm='ortho') ** 2 for frame in x])
  radius = np.hypot(np.arange(32)[:, None] / 32, np.arange(48) / 48)
  # The band from a quarter to half of the highest frequency, in space; steady
  # in time, and the fastest half.
  band = (radius > 0.25) & (radius <= 0.5)
  by_band = spectrum.reshape(4, 6)
  for row, times in ((0, [0]), (3, [5, 6, 7])):
    expected = np.log(power[times][:, band].mean() + 1 / 12)
    assert by_band[row, 4] == pytest.approx(expected, rel=1e-9)
  frames = np.log(single[:, band].mean(1) + 1 / 12)
  assert texture[4] == pytest.approx(frames.mean(), rel=1e-9)
  stray = np.abs(frames - frames.mean()).mean()
  assert texture[10] == pytest.approx(stray, rel=1e-6)


@pytest.mark.parametrize('n', [1, 2, 7, 64])
def test_cosines_are_the_orthonormal_transform(n):
  wanted = fft.dct(np.eye(n), norm='ortho', axis=0)
  np.testing.assert_allclose(descriptors.cosines(n), wanted, atol=1e-13)


def test_white_noise_has_a_flat_spectrum_and_a_still_clip_no_time():
  noise = np.random.default_rng(0).normal(128, 20, (16, 64, 64))
  noise = np.rint(noise).clip(0, 255).astype(np.uint8)
  bands = descriptors.spectra(noise)[0].reshape(4, 6)
  np.testing.assert_allclose(bands[1:, 2:], np.log(400), atol=0.2)
  still = descriptors.spectra(np.repeat(noise[:1], 16, axis=0))[0]
  np.testing.assert_allclose(still.reshape(4, 6)[1:], np.log(1 / 12))


def test_motion_counts_speeds_accelerations_and_ways():
  video = moving((2, 0), frames=6)
  vector = descriptors.motion(optical_flow.compute(video))
  speeds, turned, ways = vector[:12], vector[12:24], vector[24:]
  assert speeds.sum() == pytest.approx(1) and turned.sum() == pytest.approx(1)
  # Four pixels at 128: on a border of octaves, from 2 to 4 or from 4 to 8.
  assert speeds[6:8].sum() > 0.9
  assert turned[6:].sum() < 0.05
  assert ways[0] > 0.95  # To the right.
  backwards = descriptors.motion(optical_flow.compute(video[::-1]))
  assert backwards[24 + 4] > 0.95
  still = descriptors.motion(optical_flow.compute(video[[0, 0, 0]]))
  assert still[0] == 1 and still[24:].sum() < 0.1


def test_points_that_have_left_the_frame_count_no_more():
  """Two of four points leave at 8 px a frame, where 40 px follow."""
  forward = np.zeros((2, 16, 16, 2), np.float32)
  forward[0, :, 8:, 0], forward[1, :, 15, 0] = 8, 40
  flow = optical_flow.Flow(
    np.zeros((3, 16, 16), np.uint8),
    forward,
    -forward,
    np.ones((2, 16, 16), bool),
  )
  speeds, turned, ways = np.split(descriptors.motion(flow), [12, 24])
  # Speeds: those of four points and, in the second step, of the two that stay.
  # 8 px are the end of the octave from 4 px.
  still, fast = np.eye(12)[[0, 7]]
  np.testing.assert_allclose(speeds, (4 * still + 2 * fast) / 6)
  np.testing.assert_array_equal(turned, still)
  np.testing.assert_allclose(ways, np.eye(8)[0])


def test_appearance_counts_hues_where_there_is_colour():
  video = np.zeros((4, 8, 8, 3), np.uint8)
  video[:, :, :4] = (0, 255, 0)
  vector = descriptors.appearance(video)
  hue = cv2.cvtColor(video[0, :1, :1], cv2.COLOR_RGB2HSV_FULL)[0, 0, 0]
  expected = np.zeros(16)
  expected[hue // 16] = 0.5  # Half of the frame; black has none.
  np.testing.assert_allclose(vector[:16], expected)
  np.testing.assert_allclose(vector[32:], 0)
  video[2:] = 255 - video[2:]
  assert descriptors.appearance(video)[32:48].max() == pytest.approx(0.25)
