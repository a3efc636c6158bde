"""Errors of single steps, with denoisers of which they are known."""

import numpy as np
import pytest
import tiny_runs

from vdm.evaluation import one_step
from vdm.metrics import linear_denoiser

CLIPS = one_step.make_clips(
  np.random.default_rng(0).normal(2.0, 1.0, (6, 5, 4, 4, 3)).astype('f'),
  {'label': np.arange(6, dtype=np.int32) % 4},
)
LINEAR = linear_denoiser.fit(CLIPS.latents.reshape(6, -1))


def compare(denoise, classes=4, level=0.0):
  return one_step.compare(
    denoise, None, CLIPS, level, classes=classes, linear=LINEAR
  )


def test_errors_are_shares_of_the_mean_square():
  assert compare(lambda _, clips, level: 0 * clips.latents)['error'] == 1.0
  exact = compare(lambda _, clips, level: clips.latents)
  assert exact['error'] == exact['first_frame'] == exact['last_frame'] == 0.0
  # Noise of variance 1 / SNR, in clips of mean square 5.
  for level in (-2.0, 3.0):
    found = compare(lambda _, clips, level: clips.latents, level=level)
    assert found['identity'] == pytest.approx(np.exp(-level) / 5, rel=0.1)


def test_a_denoiser_that_looks_at_its_frame_alone_meets_no_strangers():
  def denoise(params, clips, level):
    del params
    return 0.5 * clips.latents + 0.1 * clips.noise

  found = compare(denoise)
  assert found['strangers'] == pytest.approx(found['own_frames'], rel=1e-6)


def test_a_denoiser_that_averages_frames_is_hurt_by_strangers():
  def denoise(params, clips, level):
    del params
    mean = clips.latents.mean(axis=1, keepdims=True)
    return np.broadcast_to(mean, clips.latents.shape)

  middle, others = CLIPS.latents[:, 2], np.roll(CLIPS.latents, 1, axis=0)
  others[:, 2] = middle
  expected = np.square(others.mean(axis=1) - middle).mean()
  found = compare(denoise)
  power = np.square(CLIPS.latents).mean()
  assert found['strangers'] == pytest.approx(expected / power, rel=1e-5)


def test_labels_are_taken_away_and_exchanged():
  asked = []

  def denoise(params, clips, level):
    asked.append(clips.cond['label'])
    right = clips.cond['label'] == CLIPS.cond['label']
    return clips.latents * right[:, None, None, None, None]

  found = compare(denoise)
  assert found['error'] == 0.0
  assert found['no_label'] == found['wrong_label'] == 1.0
  assert (asked[-2] == -1).all()
  assert asked[-1].min() >= 0 and asked[-1].max() < 4
  # All of the others in turn: each as often as the next.
  shifts = (asked[-1] - CLIPS.cond['label']) % 4
  assert np.bincount(shifts, minlength=4).tolist() == [0, 2, 2, 2]
  assert not {'no_label', 'wrong_label'} & set(compare(denoise, classes=0))


def test_the_network_of_a_run_sees_the_noised_clips():
  config = tiny_runs.make_config()
  config.sample.batch = 4  # Six clips: one and a half batches.
  run = tiny_runs.Run(config)
  denoise = one_step.make(config)
  x0 = denoise(run.initial.params, CLIPS, 1.0)
  assert x0.shape == CLIPS.latents.shape
  # Of a network whose head is zero, v = 0 and x0 = alpha z.
  head = run.initial.params['head_conv']
  zero = {
    **run.initial.params,
    'head_conv': {k: 0 * v for k, v in head.items()},
  }
  alpha, sigma = (1 + np.exp(-1)) ** -0.5, (1 + np.exp(1)) ** -0.5
  z = alpha * CLIPS.latents + sigma * CLIPS.noise
  np.testing.assert_allclose(denoise(zero, CLIPS, 1.0), alpha * z, atol=1e-5)
