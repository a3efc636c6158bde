"""PSNR, SSIM and flicker against scikit-image and by hand."""

import pathlib

import numpy as np
import pytest

from vdm.metrics import frame_metrics

GOLDEN = pathlib.Path(__file__).parent / 'golden/ssim.npz'


def clips(shape=(2, 5, 16, 12, 3), seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_and_ssim_are_scikit_images():
  with np.load(GOLDEN, allow_pickle=False) as golden:
    pairs, ssim, psnr = (golden[k] for k in ('pairs', 'ssim', 'psnr'))
  x, y = pairs[:, 1:], pairs[:, :1]  # Clips of one frame.
  np.testing.assert_allclose(frame_metrics.ssim(x, y), ssim, rtol=1e-10)
  np.testing.assert_allclose(frame_metrics.psnr(x, y), psnr, rtol=1e-12)
  assert 0.0 < ssim.min() < 0.5 < 0.9 < ssim.max() < 1.0


@pytest.mark.oracle
def test_ssim_live():
  metrics = pytest.importorskip('skimage.metrics')
  x, y = clips((1, 2, 31, 17, 3)), clips((1, 2, 31, 17, 3), seed=1)
  wanted = np.mean(
    [
      metrics.structural_similarity(
        a,
        b,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
      )
      for a, b in zip(x[0], y[0])
    ]
  )
  np.testing.assert_allclose(frame_metrics.ssim(x, y), [wanted], rtol=1e-10)


def test_a_clips_number_is_its_own_and_over_all_its_frames():
  x, y = clips(), clips(seed=1)
  for function in (frame_metrics.psnr, frame_metrics.ssim):
    both = function(x, y)
    assert both.shape == (2,) and both[0] != both[1]
    np.testing.assert_array_equal(function(x[1:], y[1:]), both[1:])
  # SSIM averages over frames; PSNR averages the error.
  per_frame = [frame_metrics.ssim(x[:1, [i]], y[:1, [i]])[0] for i in range(5)]
  np.testing.assert_allclose(frame_metrics.ssim(x, y)[0], np.mean(per_frame))
  error = np.mean((x[0].astype(float) - y[0]) ** 2)
  wanted = 10 * np.log10(255**2 / error)
  np.testing.assert_allclose(frame_metrics.psnr(x, y)[0], wanted)


def test_equal_clips_have_no_error():
  x = clips()
  assert np.all(np.isposinf(frame_metrics.psnr(x, x)))
  np.testing.assert_allclose(frame_metrics.ssim(x, x), 1.0)


def test_flicker_by_hand():
  source = np.full((1, 3, 16, 12, 3), 100, np.uint8)
  source[0, 1:, :4] += 2  # One step of 2: still static.
  source[0, 1, 4:6, :, 2] += 3  # One channel moves there and back.
  static = frame_metrics.static_pixels(source)
  assert static.shape == (1, 2, 16, 12)
  wanted = np.ones((2, 16, 12), bool)
  wanted[:, 4:6] = False
  np.testing.assert_array_equal(static[0], wanted)
  # 4 rows of the 14 static ones change by 2, in one of two pairs.
  np.testing.assert_allclose(
    frame_metrics.flicker(source, static), 2 * 4 / 14 / 2
  )
  # A reconstruction that alternates by one level, and by 50 where the source
  # moves: that does not count.
  shaky = np.full_like(source, 60)
  shaky[0, 1] += 1
  shaky[0, 1, 4:6] += 50
  np.testing.assert_allclose(frame_metrics.flicker(shaky, static), 1.0)
  found = frame_metrics.compare(shaky, source)
  np.testing.assert_allclose(found['flicker_in'], 2 * 4 / 14 / 2)
  np.testing.assert_allclose(found['flicker_out'], 1.0)
  np.testing.assert_allclose(found['static_share'], 14 / 16)


def test_flicker_of_nothing_static_is_undefined():
  x = clips()
  assert np.isnan(
    frame_metrics.flicker(x, np.zeros((2, 4, 16, 12), bool))
  ).all()
  found = frame_metrics.compare(x[:, :1], x[:, :1])
  assert np.isnan(found['flicker_in']).all()
  np.testing.assert_array_equal(found['static_share'], 0.0)


def test_other_arrays_are_refused():
  x = clips()
  with pytest.raises(ValueError, match='uint8'):
    frame_metrics.psnr(x / 255.0, x)
  with pytest.raises(ValueError, match=r'\[n t h w 3\]'):
    frame_metrics.psnr(x[0], x[0])
  with pytest.raises(ValueError, match='differ in shape'):
    frame_metrics.psnr(x, x[:1])
  with pytest.raises(ValueError, match='nothing to compare'):
    frame_metrics.psnr(x[:0], x[:0])
  with pytest.raises(ValueError, match='at least 11'):
    frame_metrics.ssim(x[:, :, :8], x[:, :, :8])
  with pytest.raises(ValueError, match='are not those of'):
    frame_metrics.flicker(x, np.ones((2, 5, 16, 12), bool))


def test_psnr_of_the_nearest_clip():
  references = np.zeros((2, 1, 4, 4, 3), np.uint8)
  references[1] = 200
  samples = references[::-1].copy()
  samples[0] -= 10  # 200 to 190.
  exact, ten = 10 * np.log10(255**2 / 1e-3), 20 * np.log10(25.5)
  assert frame_metrics.nearest_psnr(samples, references) == pytest.approx(
    (exact + ten) / 2
  )
