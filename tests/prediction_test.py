"""Rules that predict frames, and errors of predictions, on known motion."""

import types

import numpy as np
import pytest

from vdm.data.synthetic import scenes
from vdm.metrics import frame_metrics
from vdm.metrics import prediction


def grey(values, side=16):
  """Clips [n t] of one grey level a frame."""
  values = np.asarray(values, np.uint8)[..., None, None, None]
  return np.broadcast_to(values, (*values.shape[:2], side, side, 3)).copy()


def levels(clips):
  return clips[..., 0, 0, 0].tolist()


def test_copies_are_of_the_nearest_given_frame():
  clips = grey([[10, 20, 30, 40, 50]])
  assert levels(prediction.copy(clips, (0, 1))) == [[10, 20, 20, 20, 20]]
  assert levels(prediction.copy(clips, (0, 4))) == [[10, 10, 10, 50, 50]]


def test_cross_fades_are_blends_in_time():
  clips = grey([[10, 0, 0, 0, 50], [100, 0, 0, 0, 0]])
  wanted = [[10, 20, 30, 40, 50], [100, 75, 50, 25, 0]]
  assert levels(prediction.cross_fade(clips, (0, 4))) == wanted
  # Before the first and after the last given frame there is one neighbour.
  one = prediction.cross_fade(grey([[1, 2, 9, 4, 7, 6]]), (2, 4))
  assert levels(one) == [[9, 9, 9, 8, 7, 7]]


@pytest.mark.parametrize('given', [(0, 1, 2), (3,), (1, 6), (0, 2, 3, 7)])
def test_cross_fades_are_linear_interpolation(given):
  clips = np.random.default_rng(0).integers(0, 256, (3, 8, 4, 4, 3), np.uint8)
  known = clips[:, list(given)].reshape(3, len(given), -1)
  wanted = [
    [np.interp(range(8), given, row) for row in clip.T] for clip in known
  ]
  wanted = np.moveaxis(np.array(wanted), 1, 2).reshape(clips.shape)
  np.testing.assert_allclose(
    prediction.cross_fade(clips, given), wanted, atol=0.501
  )


def test_flow_between_its_pixels_is_interpolated(monkeypatch):
  """Waves that are stretched about the middle, whose frames are known."""
  side, small, stretch = 512, 128, 0.2
  x = np.arange(side)

  def wave(at):
    return np.rint(128 + 100 * np.sin(2 * np.pi * at / 32))

  flow = np.zeros((1, small, small, 2), np.float32)
  flow[..., 0] = stretch * (np.arange(small) - (small - 1) / 2)
  monkeypatch.setattr(
    prediction.optical_flow,
    'compute',
    lambda clip: types.SimpleNamespace(backward=flow),
  )
  frame = np.broadcast_to(wave(x)[:, None], (side, side, 3))
  clips = np.stack([frame] * 3)[None].astype(np.uint8)
  made = prediction.linear(clips, (0, 1))[0, 2, side // 2, :, 0]
  wanted = wave(x + stretch * (x - (side - 1) / 2))
  inside = slice(50, side - 50)
  assert np.abs(made - wanted)[inside].max() <= 3


def test_linear_motion_goes_on():
  rendered = [
    scenes.render(i, seed=0, resolution=64, frames=8) for i in range(4)
  ]
  clips = np.stack([scene['frames'] for scene in rendered])
  given = (0, 1, 2, 3)
  moved, copied = prediction.linear(clips, given), prediction.copy(clips, given)
  np.testing.assert_array_equal(moved[:, :4], clips[:, :4])
  by_flow, by_copy = (
    prediction.summarise(x[None], clips, given) for x in (moved, copied)
  )
  # Objects move 1.4 px a frame and more: copies are off by that, and worse in
  # every frame; a step on the flow is nearly right.
  assert by_flow['psnr'] > by_copy['psnr'] + 3
  assert (np.diff(by_copy['psnr_by_frame']) < 0).all()


def test_errors_are_by_frame_of_the_free_ones():
  truth = grey([[10, 10, 10], [90, 90, 90]])
  tries = np.stack([grey([[0, 11, 14], [0, 90, 90]]), grey([[0, 12, 13]] * 2)])
  found = prediction.summarise(tries, truth, (0,))

  def psnr(error):
    return 10 * np.log10(255**2 / error**2) if error else prediction.MOST_PSNR

  first = [[psnr(1), psnr(4)], [psnr(0), psnr(0)]]
  second = [[psnr(2), psnr(3)], [psnr(78), psnr(77)]]
  values = np.array([first, second])
  np.testing.assert_allclose(found['psnr'], values.mean())
  np.testing.assert_allclose(found['psnr_by_frame'], values.mean((0, 1)))
  best = [max(np.mean(x[i]) for x in (first, second)) for i in (0, 1)]
  np.testing.assert_allclose(found['psnr_best'], np.mean(best))

  def ssim(x, y):
    """Of two even frames, which have no variance: their brightness alone."""
    return (2 * x * y + frame_metrics.C1) / (x**2 + y**2 + frame_metrics.C1)

  first = [[ssim(11, 10), ssim(14, 10)], [1.0, 1.0]]
  second = [[ssim(12, 10), ssim(13, 10)], [ssim(12, 90), ssim(13, 90)]]
  values = np.array([first, second])
  np.testing.assert_allclose(found['ssim'], values.mean())
  np.testing.assert_allclose(found['ssim_by_frame'], values.mean((0, 1)))
  # The first try has the higher PSNR of both clips, and of the first clip the
  # lower SSIM.
  assert np.mean(first[0]) < np.mean(second[0])
  np.testing.assert_allclose(found['ssim_best'], np.mean(first))


def test_frames_that_are_too_small_have_no_ssim():
  small = prediction.summarise(grey([[0, 1]], 8)[None], grey([[0, 1]], 8), (0,))
  assert set(small) == {'psnr', 'psnr_best', 'psnr_by_frame'}
  assert small['psnr'] == prediction.MOST_PSNR


@pytest.mark.parametrize('rule', [prediction.copy, prediction.cross_fade])
def test_rules_leave_given_frames_as_they_are(rule):
  clips = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 4, 3), np.uint8)
  for given in ((0,), (0, 1, 2), (0, 5), (1, 3)):
    kept = rule(clips, given)
    np.testing.assert_array_equal(kept[:, list(given)], clips[:, list(given)])
