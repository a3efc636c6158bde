"""Small videos made large: what networks are told, and what they make of it."""

import functools

from config_variants_test import get_config
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import chain
from vdm import generate
from vdm import models
from vdm import trained
from vdm.common import errors
from vdm.common import trees
from vdm.config import check
from vdm.diffusion import cascade
from vdm.diffusion import conditions
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.planning import costs
from vdm.sampling import coders
from vdm.sampling import enlarged
from vdm.training import latent_clips
from vdm.training import objectives
from vdm.training import sharding

FRAMES, SIDE = 4, 8


def make_config(space=2, time=2, **stage):
  config = tiny_runs.make_config(**dict(frames=FRAMES, resolution=SIDE) | stage)
  config.data.resolution = SIDE
  config.model.low.update(space_factor=space, time_factor=time)
  return config


def batch(rows=8, seed=0):
  return tiny_runs.batch(rows, frames=FRAMES, size=SIDE, seed=seed)


def test_small_videos_are_area_averages_of_every_other_frame():
  video = batch(2)['video']
  for space, time in ((2, 1), (1, 2), (4, 2)):
    small = cascade.shrink(video, space, time)
    squares = video[:, ::time].reshape(
      2, FRAMES // time, SIDE // space, space, SIDE // space, space, 3
    )
    # Half a grey level goes up.
    wanted = np.floor(squares.mean((3, 5)) + 0.5)
    np.testing.assert_array_equal(small, wanted)
    compiled = jax.jit(cascade.shrink, static_argnums=(1, 2))
    np.testing.assert_array_equal(compiled(video, space, time), small)
  with pytest.raises(ValueError, match='cannot be made 3 times smaller'):
    cascade.shrink(video, 3, 1)


def test_known_frames_keep_their_places_and_the_others_blend_them():
  small = np.zeros((1, 3, 2, 2, 3), np.uint8)
  small[:, 1:] = 80, 40, 20
  large = np.asarray(cascade.enlarge(small, 1, 4))[0, :, 0, 0, 0]
  # What follows the last known frame repeats it.
  assert large.tolist() == [0, 20, 40, 60, 80, 80, 80, 80, 80, 80, 80, 80]
  np.testing.assert_array_equal(cascade.known(4, 2), [1, 0, 1, 0])
  np.testing.assert_array_equal(cascade.known(8, 4, 2), [0.5, 0, 0.5, 0])
  latents = np.ones((1, 2, 1, 1, 3), np.float32)
  assert cascade.with_known(latents, 8, 1).shape == latents.shape
  told = np.asarray(cascade.with_known(latents, 8, 4))[0, :, 0, 0]
  np.testing.assert_array_equal(told, [[1, 1, 1, 0.25]] * 2)


def test_enlarged_frames_lie_where_the_small_ones_were():
  ramp = np.arange(0, 160, 10, dtype=np.uint8)
  video = np.broadcast_to(ramp[None, None, None, :, None], (1, 1, 16, 16, 3))
  back = np.asarray(cascade.enlarge(cascade.shrink(video, 2, 1), 2, 1))
  inside = np.s_[:, :, 1:-1, 1:-1]
  np.testing.assert_array_equal(back[inside], video[inside])


def test_small_videos_are_never_dropped_nor_guided_away():
  cond = {
    'label': jnp.arange(4),
    'small': jnp.ones((4, 1, 2, 2, 3), jnp.uint8),
    'low_noise': jnp.zeros(4),
  }
  dropped = conditions.drop(cond, jax.random.key(0), {'label': 1.0})
  without = conditions.without(cond, ('label', 'text'))
  for found in (conditions.null(cond), without, dropped):
    assert (found['label'] == -1).all()
    assert (found['small'] == 1).all() and (found['low_noise'] == 0).all()


def test_noise_levels_fill_the_range_that_is_trained():
  levels = cascade.draw_levels(jax.random.key(0), 64, (0.1, 0.5))
  sigma = np.sort(process.alpha_sigma(levels)[1])
  np.testing.assert_allclose(sigma, np.linspace(0.1, 0.5, 64), atol=0.008)


# What training makes of a clip, and sampling of its small version.


def frozen_of(config):
  codec = autoencoders.make_autoencoder(config.autoencoder)
  clips = batch(2)['video'].astype(np.float32) / 127.5 - 1
  params = codec.init(jax.random.key(0), clips)
  leaf = np.linspace(0.3, 0.5, codec.channels, dtype=np.float32)
  return {'params': params, 'stats': {'mean': leaf, 'scale': leaf}}


@pytest.mark.parametrize('space, time, grouped', [(2, 1, 1), (2, 2, 2)])
def test_training_and_sampling_tell_the_same_of_a_clip(space, time, grouped):
  config = make_config(space, time)
  config.autoencoder.update(
    kind='pca', factor=4, channels=3, time_factor=grouped
  )
  frozen, clips = frozen_of(config), batch(2)
  clips_of = latent_clips.make(config, config.stages.video)
  clean = np.full(2, process.CLEAN, np.float32)
  keys = jax.random.split(jax.random.key(0), 2)
  rows = clips | {'low_noise': clean, 'key': keys}
  trained_on = jax.jit(clips_of.told)(frozen, rows)
  codec = autoencoders.make_autoencoder(config.autoencoder)
  encode, _ = coders.make(config, codec)
  tell = enlarged.make_teller(config, encode)
  small = {'small': cascade.shrink(clips['video'], space, time)}
  sampled_from = tell(frozen, small, np.arange(2, dtype=np.uint32))
  assert sampled_from.keys() == trained_on.keys() - {'label'}
  for name, x in sampled_from.items():
    np.testing.assert_array_equal(x, trained_on[name], err_msg=name)
  shape = (2, FRAMES // grouped, 2, 2, 3 + (time > 1))
  assert sampled_from['low'].shape == shape
  # Of its own seed, and as strong as asked.
  config.sample.low_noise = 0.5
  tell = enlarged.make_teller(config, encode)
  both = [tell(frozen, small, np.full(2, seed, 'u4'))['low'] for seed in (1, 2)]
  latents = [np.asarray(x)[..., :3] for x in both]
  noise = (latents[0] - latents[1]) / 2**0.5
  assert abs(noise.std() - 0.5) < 0.15
  kept = np.asarray(sampled_from['low'])[..., :3] * 0.75**0.5
  assert abs((latents[0] - kept).std() - 0.5) < 0.15


def test_what_is_missing_is_trained_and_sampled_alike():
  config = make_config(2, 1)
  config.model.low.residual = True
  config.autoencoder.update(kind='pca', factor=2, channels=12)  # All there is.
  frozen, video = frozen_of(config), batch(2)['video']
  clips_of = latent_clips.make(config, config.stages.video)
  trained_on = jax.jit(clips_of.encode)(frozen, {'video': video})
  codec = autoencoders.make_autoencoder(config.autoencoder)
  both = coders.make(config, codec)
  encode, decode = enlarged.make_coders(config, *both)
  z = encode(frozen, video)
  np.testing.assert_allclose(z, trained_on, atol=1e-4)
  cond = {'small': cascade.shrink(video, 2, 1)}
  np.testing.assert_array_equal(decode(frozen, z, cond), video)
  large = cascade.enlarge(cond['small'], 2, 1)
  # Without anything, the enlarged video, shifted to agree with the small one.
  nothing = np.asarray(decode(frozen, 0 * z, cond))
  short = cond['small'].astype(int) - cascade.shrink(np.asarray(large), 2, 1)
  short = short.repeat(2, 2).repeat(2, 3)
  np.testing.assert_array_equal(nothing, np.clip(large + short, 0, 255))
  # The network is told of the small video what it would be told without.
  rows = {'low_noise': np.full(2, process.CLEAN, np.float32), 'video': video}
  rows['key'] = jax.random.split(jax.random.key(0), 2)
  low = clips_of.told(frozen, rows)['low']
  np.testing.assert_allclose(low, both[0](frozen, large), atol=1e-5)


def test_a_network_without_small_videos_is_what_it_was():
  """Off: no parameter, no condition and no random number is added."""
  plain = make_config(1, 1)
  network = models.make_unet(plain.model, 3)
  names = trees.flatten(network.abstract_params())
  assert not any('low' in name for name in names)
  stage = plain.stages.video
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(plain, stage, mesh)
  rows = jax.eval_shape(objective.draw, batch(), jax.random.key(0), 0)
  assert rows.keys() == {'video', 'label', 'levels', 'loss_mask', 'key'}
  told = make_config()
  own = objectives.make_objective(told, told.stages.video, mesh)
  both = [
    jax.jit(x.draw)(batch(), jax.random.key(0), 0) for x in (objective, own)
  ]
  assert both[1].keys() - both[0].keys() == {'low_noise'}
  for name in ('levels', 'loss_mask', 'label'):
    np.testing.assert_array_equal(both[0][name], both[1][name])
  # One that gains them computes what it did: it can start from a trained one.
  params = tiny_runs.randomise(network.abstract_params())
  more = models.make_unet(told.model, 3)
  new = trees.flatten(more.abstract_params()).keys() - names.keys()
  assert new == {'stem_low/kernel', 'embed_low/kernel', 'embed_low/bias'}

  @jax.jit
  def initial(key):
    return {name: trees.flatten(more.init(key))[name] for name in new}

  merged = trees.unflatten(trees.flatten(params) | initial(jax.random.key(0)))
  z = np.random.default_rng(0).normal(size=(2, FRAMES, 4, 4, 3))
  cond = {'label': jnp.array([0, 1])}
  low = {'low': jnp.ones((*z.shape[:-1], 4)), 'low_noise': jnp.zeros(2)}
  inputs = jnp.asarray(z, jnp.float32), jnp.zeros((2, FRAMES))
  np.testing.assert_array_equal(
    jax.jit(network.apply)(params, *inputs, cond),
    jax.jit(more.apply)(merged, *inputs, cond | low),
  )


def test_the_network_sees_the_small_video_and_its_noise():
  config = make_config()
  network = models.make_unet(config.model, 3)
  params = tiny_runs.randomise(network.abstract_params(), scale=1.0)
  z = jnp.zeros((2, FRAMES, 4, 4, 3))

  @jax.jit
  def apply(params, low, noise):
    cond = {'label': jnp.zeros(2, int), 'low': low, 'low_noise': noise}
    return network.apply(params, z, jnp.zeros((2, FRAMES)), cond)

  low = jnp.ones((2, FRAMES, 4, 4, 4))
  first = np.asarray(apply(params, low, jnp.array([0.0, process.CLEAN])))
  assert np.isfinite(first).all() and np.abs(first[0] - first[1]).max() > 1e-3
  changed = np.asarray(
    apply(params, 0.5 * low, jnp.array([0.0, process.CLEAN]))
  )
  assert np.abs(first - changed).max() > 1e-3


def test_eight_devices_do_what_one_does():
  found, params = [], None
  for devices in (1, 8):
    run = tiny_runs.Run(make_config(), params, devices=devices)
    params = run.initial.params
    state, (metrics,) = run.train([batch()])
    found.append((trees.flatten(state.params), metrics))
  (one, metrics), (other, sharded) = found
  np.testing.assert_allclose(metrics['loss'][0], sharded['loss'][0], 1e-4)
  for name, leaf in one.items():
    np.testing.assert_allclose(other[name], leaf, atol=1e-5, err_msg=name)
  before = trees.flatten(params)['stem_low/kernel']
  assert np.abs(one['stem_low/kernel'] - before).max() > 0


def test_validation_and_previews_are_of_the_clips_own_small_versions():
  config = make_config()
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(config, config.stages.video, mesh)
  params = tiny_runs.randomise(objective.abstract_params())
  clips = enlarged.with_small(config.model, batch(3))
  frozen = tiny_runs.autoencoder()
  shown = objective.preview(params, frozen, clips)
  assert list(shown) == ['real', 'low', 'reconstruction', 'samples']
  np.testing.assert_array_equal(
    shown['low'], cascade.enlarge(clips['small'][:2], 2, 2)
  )
  found = objective.validate(params, frozen, clips)
  others = {**clips, 'small': 255 - clips['small']}
  assert found == objective.validate(params, frozen, others)
  assert found['val_loss'] != found['val_loss_labelled']
  videos = objective.samples(params, frozen, clips)
  changed = objective.samples(params, frozen, others)
  assert videos.shape == (3, FRAMES, SIDE, SIDE, 3)
  assert (videos != changed).any()


def test_operations_of_encoding_the_small_video_are_counted():
  found = [
    costs.count(make_config(*factors, batch=4), 'video')
    for factors in ((1, 1), (2, 1))
  ]
  # The stem alone: 9 x 3 products a position, forwards and for its gradient.
  positions = 4 * FRAMES * SIDE * SIDE
  least = 2 * 2 * 9 * 3 * 8 * positions
  assert 1e12 * (found[1].tflop - found[0].tflop) >= least
  assert found[1].parameters - found[0].parameters == 9 * 3 * 8 + 8 * 8 + 8


# In closed form.

SCALE, TAU, SPREAD = 0.5, 0.3, 0.6
FROZEN = {
  'params': {},
  'stats': {'mean': np.zeros(3, 'f'), 'scale': np.full(3, SCALE, 'f')},
}


def posterior(cond, shape):
  """(mean, variance) of x given the noisy small video, jointly Gaussian.

  Latents of the enlarged video have the variance SPREAD^2, and x is these and
  independent noise of TAU. Without one, x has the small videos' law.
  """
  if 'low' not in cond:
    return jnp.zeros(shape), SPREAD**2
  alpha, sigma = process.alpha_sigma(cond['low_noise'])
  alpha, sigma = (x.reshape(-1, 1, 1, 1, 1) for x in (alpha, sigma))
  variance = 1 / (SPREAD**-2 + alpha**2 / sigma**2)
  mean = variance * alpha / sigma**2 * cond['low'][..., :3]
  return mean, variance + TAU**2


def exact(params, z, levels, cond):
  """E[x | z, low]."""
  del params
  mean, variance = posterior(cond, z.shape)
  alpha, sigma = process.alpha_sigma(process.per_frame(levels, z))
  precision = alpha**2 / sigma**2 + 1 / variance
  return (alpha / sigma**2 * z + mean / variance) / precision


def model_of(config, name):
  return trained.Model(
    config=config,
    stage=config.stages.video,
    step=1,
    params={},
    frozen=FROZEN,
    label_names=[],
    frame_rate=25.0,
    source=name,
  )


@pytest.fixture
def links(monkeypatch):
  """(a model of 2 frames of 4 px, one that makes 4 frames of 8 px of them)."""
  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, exact)
  )
  small = make_config(1, 1, frames=2, resolution=4)
  large = make_config(2, 2)
  for config in (small, large):
    config.model.num_classes = 0
    config.diffusion.prediction = 'x0'
    config.sample.update(steps=64, method='heun', batch=256, guidance=1.0)
  return model_of(small, 'runs/a'), model_of(large, 'runs/b')


@pytest.mark.parametrize('sigma', [0.0, 0.5])
def test_a_chain_of_perfect_denoisers_has_the_conditional_law(links, sigma):
  first, second = links
  num = 256
  make = generate.make_generator(first.config, first.stage)
  labels, seeds = np.full(num, -1), np.arange(num)
  small = make.samples({}, FROZEN, {'label': labels}, seeds)
  planned = chain.plan(first, 2, 12.5, [second], low_noise=sigma)
  generators = chain.keeping()
  videos, (record,) = chain.make(
    planned, small, labels, [], (), seeds, generators
  )
  # Models that are used again are as they were read, and compiled once.
  assert second.config.sample.low_noise == 0
  link = planned[0].run
  assert generators(link) is generators(link._replace(params={}))
  assert generators(link) is not generators(second) or not sigma
  assert videos.shape == (num, 4, 8, 8, 3)
  assert (record['low_noise'], record['frame_rate']) == (sigma, 25.0)
  told = np.asarray(cascade.enlarge(small, 2, 2))
  low, x = ((v / 127.5 - 1) / SCALE for v in (told, videos))
  # m = gain * noisy: of a sigma of its own, its mean is shrunk to the prior's.
  alpha2, sigma2 = 1 - sigma**2, max(sigma**2, 1e-12)
  variance = 1 / (SPREAD**-2 + alpha2 / sigma2)
  gain = variance * alpha2 / sigma2
  wanted = variance + TAU**2 + (variance / sigma2) ** 2 * alpha2 * sigma2
  slope = (x * low).mean() / (low**2).mean()
  rest = x - gain * low
  # 196 608 values; pixels are rounded to 0.008.
  assert abs(slope - gain) < 0.01
  assert abs(rest.mean()) < 0.01
  assert abs(rest.var() / wanted - 1) < 0.02
  # Neighbours in space and time are told the same and are else independent.
  for axis in (1, 2, 3):
    near = np.take(rest, [0], axis) * np.take(rest, [1], axis)
    assert abs(near.mean() / wanted) < 0.03


def test_a_chain_tells_a_model_the_rate_of_its_own_videos(links, monkeypatch):
  """Twice that of the small ones, whatever the clips of its run have."""
  first, second = links

  def brightness(params, z, levels, cond):
    del params, levels
    rate = jnp.nan_to_num(cond['frame_rate'])[:, None, None, None, None]
    return jnp.broadcast_to(0.02 * rate, z.shape)

  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, brightness)
  )
  config = second.config
  config.data.update(frame_rate=25.0, stride=1, max_stride=4)
  config.model.scalars = ('frame_rate',)
  config.sample.update(steps=2, guidance_by='frame_rate=3,given=1.5')
  second.stage.frame_levels.update(shared=0.5, independent=0.5)
  for frames, guided_by in (
    (2, 'frame_rate=3,given=1'),  # One window, in which no frame is held.
    (3, 'frame_rate=3,given=1.5'),
  ):
    planned = chain.plan(first, frames, 6.25, [second])
    small = np.zeros((2, frames, 4, 4, 3), np.uint8)
    labels, seeds = np.full(2, -1), np.arange(2)
    videos, (record,) = chain.make(
      planned, small, labels, [], (), seeds, chain.keeping()
    )
    assert record['guidance_by'] == guided_by
    assert record['scalars'] == {'frame_rate': 12.5}
    # Untold it is 0, so that a scale of 3 makes three times the brightness.
    wanted = round((3 * 0.02 * 12.5 * SCALE + 1) * 127.5)
    assert videos.shape[1] == 2 * frames and set(videos.flat) == {wanted}
  with pytest.raises(ValueError) as error:
    chain.plan(first, 2, 25.0, [second])
  said = str(error.value)
  assert 'runs/b' in said and '50 is outside of what the run' in said


def test_what_is_missing_is_added_to_the_small_video(links, monkeypatch):
  """Where it does not depend on that, and noise on that changes nothing."""

  def missing(params, z, levels, cond):
    del params, cond
    alpha, sigma = process.alpha_sigma(process.per_frame(levels, z))
    return alpha * z / (alpha**2 + sigma**2 / (cascade.GAIN * TAU) ** 2)

  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, missing)
  )
  config = links[1].config
  config.model.low.update(time_factor=1, residual=True)
  config.sample.low_noise = 0.3
  small = np.random.default_rng(0).integers(64, 192, (99, 4, 4, 4, 3), np.uint8)
  make = generate.make_generator(config, config.stages.video)
  cond = {'label': np.full(99, -1), 'small': small}
  videos = make.samples({}, FROZEN, cond, np.arange(99))
  np.testing.assert_allclose(
    cascade.shrink(videos, 2, 1).astype(int), small, atol=1
  )
  rest = videos - np.asarray(cascade.enlarge(small, 2, 1)).astype(float)
  rest = rest.reshape(99, 4, 4, 2, 4, 2, 3) / (127.5 * SCALE)
  # Of four values of a square, their mean is what the small video says.
  rest -= rest.mean((3, 5), keepdims=True)
  # 76 032 values.
  assert abs(rest.std() / (0.75**0.5 * TAU) - 1) < 0.02


def test_noise_of_a_video_is_its_own_in_every_model(links):
  seeds = np.arange(1000)
  found = [enlarged.own_seeds(seeds, link.stage) for link in links]
  for one in found:
    assert len(set(one.tolist())) == 1000
  assert not set(found[0].tolist()) & set(found[1].tolist())
  assert not set(found[1].tolist()) & set(seeds.tolist())


def test_longer_videos_are_enlarged_window_by_window(links):
  """Windows see the small frames that are theirs."""
  _, second = links
  second.stage.frame_levels.update(shared=0.5, context=0.5)
  small = np.random.default_rng(0).integers(64, 192, (2, 5, 4, 4, 3), np.uint8)
  make = generate.make_generator(second.config, second.stage)
  cond = {'label': np.full(2, -1), 'small': small}
  task = rollouts.Task(frames=10, overlap=2)
  videos = make.samples({}, FROZEN, cond, [0, 1], task)
  assert videos.shape == (2, 10, 8, 8, 3)
  told = np.asarray(cascade.enlarge(small, 2, 2)).astype(float)
  # The last frame of a window repeats the last known one.
  told[:, 3::2] = told[:, 2::2]
  rest = ((videos - told) / 127.5 / SCALE).std((0, 2, 3, 4))
  np.testing.assert_allclose(rest, TAU, rtol=0.12)
  with pytest.raises(ValueError, match='between two known frames'):
    task = rollouts.Task(frames=10, overlap=1)
    make.samples({}, FROZEN, cond, [0, 1], task)


def test_what_does_not_fit_is_said_before_anything_is_computed(links):
  first, second = links
  for wrong, words in (
    (lambda: chain.plan(first, 2, 25.0, [first]), 'it can only come first'),
    (lambda: chain.plan(second, 4, 25.0, [second]), 'makes 4 of 8 px'),
    (lambda: chain.plan(first, 1, 25.0, [second]), 'enlarges 2 frames of 4 px'),
    (lambda: chain.plan(first, 3, 25.0, [second]), 'frames are given'),
    (lambda: chain.plan(first, 2, 25.0, [second], 0.7), 'what is trained'),
  ):
    with pytest.raises(ValueError) as error:
      wrong()
    said = str(error.value)
    assert words in said and '\n' not in said and said.endswith('.'), said
  make = generate.make_generator(second.config, second.stage)
  call = functools.partial(make.samples, {}, FROZEN)
  with pytest.raises(ValueError, match='give it some, by --low'):
    call({'label': [-1]}, [0])
  small = np.zeros((1, 2, 8, 8, 3), np.uint8)
  with pytest.raises(ValueError, match='made of 2 frames of 4 px'):
    call({'label': [-1], 'small': small}, [0])


def test_labels_go_along_by_their_names(links):
  _, second = links
  config = second.config
  config.model.num_classes = 2
  run = second._replace(label_names=['left', 'up'], config=config)
  names = ['up', 'down', 'left']
  asked = chain.hand_on(run, np.array([0, 1, 2, -1]), names, ('a', 'b'))
  assert asked.cond['label'].tolist() == [1, -1, 0, -1]
  assert asked.captions == ()


@pytest.mark.parametrize(
  'values, words',
  [
    (dict(model__kind='transformer'), 'masked tokens'),
    (dict(model__low__noise=(0.0, 1.0)), 'end below 1'),
    (dict(sample__low_noise=0.7), 'outside of what is trained'),
    (dict(data__latents='cache'), 'leave one of them out'),
    (dict(sample__image_first=True), 'image_first'),
    (
      dict(
        stages__video__objective='consistency', train__init_from='runs/another'
      ),
      'set it to diffusion',
    ),
    (dict(stages__video__crop=4, model__low__space_factor=8), 'divisible'),
    (dict(stages__video__frames=7), 'time_factor=4'),
    (dict(model__low__residual=True), 'added frames lack everything'),
    (
      dict(model__low__residual=True, model__low__time_factor=1),
      'set config.model.low.space_factor',
    ),
    (dict(stages__video__image_fraction=0.2), 'set it to 0'),
    (
      dict(model__low__time_factor=1, sample__low_noise=0.1),
      'the network is told none',
    ),
  ],
)
def test_what_a_configuration_cannot_have_is_one_sentence(values, words):
  config = get_config('synthetic_cascade', 'frames,smoke')
  config.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in values.items()}
  )
  with pytest.raises(errors.UsageError) as error:
    check.validate(config)
  said = str(error.value)
  assert words in said and '\n' not in said and said.endswith('.'), said
