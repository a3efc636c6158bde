"""Held-out clips that are noised and sampled on from there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm import models
from vdm.config import schema
from vdm.data.synthetic import scenes
from vdm.diffusion import process
from vdm.evaluation import noised_clips
from vdm.sampling import coders
from vdm.sampling import denoised

WORLD = dict(
  seed=5, resolution=64, frames=16, objects=1, motion='straight', ground='plain'
)


@pytest.fixture(scope='module')
def clips():
  made = [scenes.render(i, **WORLD) for i in range(6)]
  return {
    'video': np.stack([clip['frames'] for clip in made]),
    'label': np.array([clip['label'] for clip in made]),
  }


@pytest.fixture
def config():
  config = schema.default()
  config.data.name = 'synthetic_scenes'
  config.autoencoder.kind = 'identity'
  config.sample.guidance = 1.0
  return config


STAGE = schema.stage(frames=16, resolution=64)
FROZEN = {
  'params': {},
  'stats': {'mean': np.zeros(3, 'f'), 'scale': np.ones(3, 'f')},
}


def denoiser(monkeypatch, denoise):
  monkeypatch.setattr(denoised, 'make_denoiser', lambda *_: denoise)


def test_a_model_that_knows_the_clips_keeps_their_shapes(
  clips, config, monkeypatch
):
  truth = coders.to_float(clips['video'])
  seen = []

  def denoise(params, z, levels, cond):
    del params, cond
    jax.debug.callback(lambda x: seen.append(float(x)), levels.max())
    return truth + 0 * z

  denoiser(monkeypatch, denoise)
  score = noised_clips.make_shape_score(config, STAGE)
  found = score({}, FROZEN, clips)
  assert found == dict.fromkeys(
    ('kept_from_1.6', 'kept_from_3.2', 'kept_from_8'), 100.0
  )
  jax.effects_barrier()
  # It starts where the clips are noised to: log-SNR = -2 log(sigma / alpha).
  starts = [-2 * np.log(s) for s in noised_clips.SIGMAS]
  assert all(np.isclose(seen, x, atol=1e-5).any() for x in starts)
  assert min(seen) == pytest.approx(min(starts), abs=1e-5)


def test_noise_of_single_frames_is_told_from_what_is_kept(
  clips, config, monkeypatch
):
  """A model that takes each frame for another clip's loses every shape."""
  others = coders.to_float(clips['video'])
  shuffled = np.stack(
    [others[(np.arange(16) + i) % 6, np.arange(16)] for i in range(6)]
  )
  denoiser(monkeypatch, lambda params, z, levels, cond: shuffled + 0 * z)
  found = noised_clips.make_shape_score(config, STAGE)({}, FROZEN, clips)
  assert max(found.values()) == 0


def test_the_noise_is_that_of_the_level(clips, config, monkeypatch):
  """A model that returns the scaled state shows what it was given."""

  def denoise(params, z, levels, cond):
    # The first state; later ones have moved from it.
    return z / process.per_frame(process.alpha_sigma(levels)[0], z)

  denoiser(monkeypatch, denoise)
  monkeypatch.setattr(noised_clips, 'STEPS', 1)
  monkeypatch.setattr(noised_clips, 'SIGMAS', (0.1,))
  restore = noised_clips.make(config, STAGE)
  made = coders.to_float(restore({}, FROZEN, clips)[0])
  error = np.asarray(made - coders.to_float(clips['video']))
  # Where neither end of [-1, 1] clips it: nowhere in these scenes but on
  # anti-aliased edges, so half of the noise is cut off on either side.
  half = error[clips['video'] == 0]
  assert half.min() >= -1e-6
  np.testing.assert_allclose(half.mean(), 0.1 / (2 * np.pi) ** 0.5, rtol=0.01)


def test_other_data_have_no_such_score(config):
  config.data.name = 'ucf101'
  assert noised_clips.make_shape_score(config, STAGE) is None


def test_networks_that_are_shown_the_shape_have_none(config):
  config.model.low.space_factor = 2
  assert noised_clips.make_shape_score(config, STAGE) is None


@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_guidance_is_that_of_the_samples(scale, clips, config, monkeypatch):
  """Told of a label the denoiser says 0.3, and 0.1 without one."""

  def denoise(params, z, levels, cond):
    told = jnp.where(cond['label'] < 0, 0.1, 0.3)
    return process.per_frame(told[:, None], z) + 0 * z

  denoiser(monkeypatch, denoise)
  config.sample.guidance = scale
  config.model.num_classes = 8
  for made in noised_clips.make(config, STAGE)({}, FROZEN, small(clips)):
    wanted = 0.1 + scale * 0.2
    # Half of a grey level, of 127.5.
    np.testing.assert_allclose(coders.to_float(made), wanted, atol=0.0041)


def test_the_noise_of_every_row_is_its_own(config, monkeypatch):
  """Of equal clips, with a model that returns the scaled state."""

  def denoise(params, z, levels, cond):
    return z / process.per_frame(process.alpha_sigma(levels)[0], z)

  denoiser(monkeypatch, denoise)
  monkeypatch.setattr(noised_clips, 'STEPS', 1)
  monkeypatch.setattr(noised_clips, 'SIGMAS', (0.1,))
  config.sample.batch = 2  # Three rows: one and a half batches.
  grey = np.full((3, 2, 16, 16, 3), 128, np.uint8)
  equal = {'video': grey, 'label': np.zeros(3, np.int32)}
  restore = noised_clips.make(config, STAGE)
  (made,) = restore({}, FROZEN, equal)
  noise = (coders.to_float(made) - coders.to_float(grey)).reshape(3, -1)
  # Of 1536 values: correlations of 0.026 are one deviation.
  np.testing.assert_allclose(np.corrcoef(noise), np.eye(3), atol=0.13)
  # Another seed of the run is other noise, and the same one the same.
  np.testing.assert_array_equal(restore({}, FROZEN, equal)[0], made)
  config.sample.seed += 100
  (other,) = noised_clips.make(config, STAGE)({}, FROZEN, equal)
  assert (other != made).reshape(3, -1).any(-1).all()


def small(clips):
  return {
    k: v[:2, :2, 24:40, 24:40] if k == 'video' else v[:2]
    for k, v in clips.items()
  }


def test_it_runs_with_a_network_and_guidance(clips, config):
  config.sample.update(guidance=2.0, batch=4)
  config.model.update(
    num_classes=8, widths=(8, 16), head_size=8, embed_width=16
  )
  network = models.make_unet(config.model, 3)
  params = network.init(jax.random.key(0))
  cut = small(clips)
  restore = noised_clips.make(config, schema.stage(frames=2, resolution=16))
  made = restore(params, FROZEN, cut)[1]
  assert made.shape == cut['video'].shape and made.dtype == np.uint8
