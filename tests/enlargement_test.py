"""Rules that enlarge: against SciPy, and against what they must not change."""

import numpy as np
from scipy import ndimage

from vdm.metrics import enlargement


def test_unsharp_masking_is_scipys():
  random = np.random.default_rng(0)
  videos = random.integers(0, 256, (2, 3, 24, 32, 3), np.uint8)
  deviation = 2 * 0.35
  blurred = ndimage.gaussian_filter(
    videos.astype(float), (0, 0, deviation, deviation, 0), mode='mirror'
  )
  expected = np.clip(videos + 0.5 * (videos - blurred), 0, 255)
  made = enlargement.sharpened(videos, 2)
  assert made.dtype == np.uint8
  # One of rounding, and what OpenCV's kernel leaves out at its ends.
  assert np.abs(made - expected).max() < 1.0


def test_what_is_flat_stays_and_an_edge_becomes_steeper():
  small = np.zeros((1, 1, 8, 8, 3), np.uint8)
  small[..., 4:, :] = 200
  rules = enlargement.rules(small, 2, 1)
  assert list(rules) == ['bicubic', 'lanczos', 'sharpened']
  smooth, steep = (
    rules[name][0, 0, 8, :, 0].astype(int) for name in ('lanczos', 'sharpened')
  )
  assert steep[0] == 0 and steep[-1] == 200
  assert np.diff(steep).max() > np.diff(smooth).max()


def test_only_what_changes_wrongly_flickers():
  random = np.random.default_rng(0)
  truth = random.integers(10, 200, (2, 5, 8, 8, 3), np.uint8)
  wrong = random.integers(0, 9, (2, 1, 8, 8, 3), np.uint8)
  assert enlargement.flicker(truth + wrong, truth) == 0
  # Up by 3 in every second frame: every change is wrong by 3.
  lit = truth + np.array([0, 3, 0, 3, 0], np.uint8).reshape(1, 5, 1, 1, 1)
  assert enlargement.flicker(lit, truth) == 3
  sets = {'still': truth + wrong, 'lit': lit}
  found = enlargement.measure(sets, truth, 2, 1)
  assert [x['flicker'] for x in found.values()] == [0, 3]
  alone = enlargement.measure({'one': lit[:, 1:2]}, truth[:, 1:2], 2, 1)
  assert 'flicker' not in alone['one']
