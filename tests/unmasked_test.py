"""Videos of masked tokens: given frames, windows and guidance in closed form.

Everything is the real path from seeds to pixels but for the autoencoder, whose
tokens are pixels of four grey levels, and the network.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import generate
from vdm import models
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.models.autoencoders import fsq

LENGTH, SIDE, VALUES = 4, 2, 4
FROZEN = {'params': {}, 'stats': {'mean': np.ones(1, 'f'), 'scale': np.ones(1)}}
MIXED = dict(shared=0.5, context=0.5)


def make_codec(config):
  del config

  def encode(params, x):
    del params
    digits = jnp.round((x[..., :1] + 1) / 2 * (VALUES - 1)).astype(int)
    z = fsq.from_digits(digits, (VALUES,))
    return z, z

  def decode(params, z):
    del params
    digits = fsq.to_digits(z, (VALUES,))
    return jnp.repeat(digits * 2.0 / (VALUES - 1) - 1, 3, axis=-1)

  return autoencoders.Autoencoder(
    (1, 1, 1), 1, None, encode, decode, levels=(VALUES,)
  )


def follow(params, tokens, masked, cond, dtype):
  """The next grey level in every frame, as any known frame says, or `cond`."""
  step = jnp.arange(tokens.shape[1])[None, :, None, None]
  start = (tokens[..., 0] - step) % VALUES
  known = jax.nn.one_hot(start, VALUES) * ~masked[..., None]
  votes = known.sum(axis=1, keepdims=True)
  told = jax.nn.one_hot(cond['label'], VALUES)[:, None, None, None]
  logits = params['sure'] * votes + params['told'] * told
  values = jnp.arange(VALUES).reshape(1, 1, 1, 1, -1)
  index = (values - step[..., None]) % VALUES
  logits = jnp.broadcast_to(logits, (*masked.shape, VALUES))
  return jnp.take_along_axis(
    logits, jnp.broadcast_to(index, logits.shape), axis=-1
  ).astype(dtype)


@pytest.fixture
def make_videos(monkeypatch):
  """Function that returns grey levels [n t SIDE SIDE] of videos."""
  monkeypatch.setattr(
    models, 'make_transformer', lambda *_: models.Network(dict, follow)
  )
  monkeypatch.setattr(autoencoders, 'make_autoencoder', make_codec)

  def make(
    task=rollouts.PLAIN,
    given=None,
    num=6,
    told=0.0,
    labels=None,
    seeds=None,
    worse=None,
    **options,
  ):
    config = tiny_runs.make_config(
      objective='tokens',
      frames=LENGTH,
      resolution=SIDE,
      frame_levels=MIXED,
      image_fraction=0.2,
    )
    config.model.kind = 'transformer'
    config.sample.update(
      **dict(method='unmask', steps=LENGTH, batch=4, guidance=1.0) | options
    )
    make = generate.make_generator(
      config,
      config.stages.video,
      worse=worse and generate.Average(config, worse, 0, ''),
    )
    if given is not None:
      given = np.uint8(np.repeat(given[..., None] * 85, 3, axis=-1))
    labels = np.zeros(num, int) if labels is None else labels
    videos = make.samples(
      {'sure': 60.0, 'told': told},
      FROZEN,
      {'label': labels},
      np.arange(num) if seeds is None else seeds,
      task,
      given,
    )
    assert (videos == videos[..., :1]).all()
    return videos[..., 0].astype(int) // 85

  return make


def draw_given(num, frames, seed=0):
  generator = np.random.default_rng(seed)
  shape = (num, frames, SIDE, SIDE)
  return generator.integers(0, VALUES, shape)


def test_the_first_frame_is_kept_and_followed(make_videos):
  given = draw_given(6, 1)
  videos = make_videos(rollouts.Task(given=(0,)), given)
  wanted = (given + np.arange(LENGTH)[:, None, None]) % VALUES
  np.testing.assert_array_equal(videos, wanted)


def test_both_ends_are_kept(make_videos):
  """Though they disagree: what is given is never masked."""
  given = draw_given(6, 2)
  videos = make_videos(rollouts.Task(given=(0, LENGTH - 1)), given)
  np.testing.assert_array_equal(videos[:, [0, LENGTH - 1]], given)


def test_windows_continue_what_was_made(make_videos):
  task = rollouts.Task(frames=11, overlap=1)
  videos = make_videos(task, num=5, steps=4 * LENGTH)
  start = videos[:, :1]
  wanted = (start + np.arange(11)[:, None, None]) % VALUES
  # Nothing is certain in the first step of the first window alone.
  assert np.mean(videos[:, 4:] == wanted[:, 4:]) > 0.9
  continued = (videos[:, 3:4] + np.arange(8)[:, None, None]) % VALUES
  np.testing.assert_array_equal(videos[:, 3:], continued)


def test_an_image_can_come_first(make_videos):
  videos = make_videos(image_first=True, num=40, batch=40, steps=1)
  wanted = (videos[:, :1] + np.arange(LENGTH)[:, None, None]) % VALUES
  np.testing.assert_array_equal(videos, wanted)
  assert len(np.unique(videos[:, 0])) == VALUES


def test_a_video_depends_on_its_own_seed_alone(make_videos):
  many = make_videos(num=6, batch=4)
  alone = make_videos(num=1, seeds=[5], batch=1)
  np.testing.assert_array_equal(alone[0], many[5])
  assert (many[4] != many[5]).any()


def test_guidance_is_of_logits(make_videos):
  """Probabilities p_cond (p_cond / p_null)^(scale - 1), in one step."""
  num, told, scale = 2000, 0.7, 3.0
  labels = np.full(num, 2)
  videos = make_videos(
    num=num, told=told, labels=labels, steps=1, guidance=scale, batch=1000
  )
  p = np.exp(told * scale) / (np.exp(told * scale) + VALUES - 1)
  share = (videos[:, 0] == 2).mean()
  error = np.sqrt(p * (1 - p) / (num * SIDE * SIDE))
  assert abs(share - p) < 4 * error
  # Against a worse network, whose label says less.
  videos = make_videos(
    num=num,
    told=told,
    labels=labels,
    steps=1,
    guidance=scale,
    batch=1000,
    worse={'sure': 0.0, 'told': 0.2},
  )
  gap = told + (scale - 1) * (told - 0.2)
  p = np.exp(gap) / (np.exp(gap) + VALUES - 1)
  assert abs((videos[:, 0] == 2).mean() - p) < 4 * error


@pytest.mark.parametrize('temperature', [0.5, 2.0])
def test_temperature_is_of_the_tokens_that_are_drawn(make_videos, temperature):
  num, told = 1000, 0.7
  videos = make_videos(
    num=num,
    told=told,
    labels=np.full(num, 2),
    steps=1,
    batch=num,
    temperature=temperature,
  )
  p = np.exp(told / temperature * np.eye(VALUES)[2])
  p = p / p.sum()
  counts = np.bincount(videos[:, 0].ravel(), minlength=VALUES)
  error = np.sqrt(p * (1 - p) / counts.sum())
  assert (np.abs(counts / counts.sum() - p) < 4 * error).all()


@pytest.mark.parametrize(
  'task, words',
  [
    (dict(given=(0,), history_guidance=2.0), 'History guidance shows'),
    (dict(given=(0,), context_noise=0.1), 'have no noise'),
  ],
)
def test_what_is_of_noise_is_refused(make_videos, task, words):
  with pytest.raises(ValueError, match=words):
    make_videos(rollouts.Task(**task), draw_given(6, 1))


def test_methods_of_noise_are_refused(make_videos):
  with pytest.raises(ValueError, match='leave the method at unmask'):
    make_videos(method='ddim')
  config = tiny_runs.make_config()
  config.sample.method = 'unmask'
  with pytest.raises(ValueError, match='Method unmask is of masked tokens'):
    generate.make_generator(config, config.stages.video)


def test_temperatures_are_of_tokens_and_above_zero(make_videos):
  with pytest.raises(ValueError, match='Temperature 0 leaves nothing to draw'):
    make_videos(temperature=0.0)
  config = tiny_runs.make_config()
  config.sample.temperature = 0.5
  with pytest.raises(ValueError, match='Temperature 0.5 is of masked tokens'):
    generate.make_generator(config, config.stages.video)


def test_codes_are_not_normalised(make_videos):
  """The statistics are anything: a clip comes back as it is."""
  del make_videos  # For its autoencoder.
  config = tiny_runs.make_config(
    objective='tokens', frames=LENGTH, resolution=SIDE
  )
  config.model.kind = 'transformer'
  config.sample.method = 'unmask'
  make = generate.make_generator(config, config.stages.video)
  video = np.uint8(np.repeat(draw_given(3, LENGTH)[..., None] * 85, 3, -1))
  np.testing.assert_array_equal(make.reconstruct(FROZEN, video), video)
