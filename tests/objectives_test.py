"""Objectives against their definitions, worked out in NumPy."""

import itertools

import jax
import numpy as np
import pytest
import tiny_runs

from vdm.common import trees
from vdm.config import schema
from vdm.sampling import batching
from vdm.training import latent_clips
from vdm.training import objective as protocol
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import stages
from vdm.training import videos


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh(devices=jax.devices()[:1])


def silent(params):
  """Parameters of a network whose output is zero."""
  flat = trees.flatten(tiny_runs.randomise(params))
  head = {p: np.zeros_like(x) for p, x in flat.items() if 'head_conv' in p}
  return trees.unflatten({**flat, **head})


def coefficients(levels):
  """alpha and sigma in float64, with axes for (h w c)."""
  levels = np.asarray(levels, np.float64)[..., None, None, None]
  return (1 + np.exp(-levels)) ** -0.5, (1 + np.exp(levels)) ** -0.5


def latents(video):
  """Pixels as the tiny autoencoder normalises them."""
  return (video / 127.5 - 1.0) / 0.5


def noise(keys, shape):
  """Each row's noise, from its own key alone."""

  def fold(key):
    return jax.random.fold_in(key, protocol.NOISE)

  return np.stack([jax.random.normal(fold(key), shape[1:]) for key in keys])


def test_diffusion_loss_is_the_mean_over_frames_that_are_not_given(mesh):
  config = tiny_runs.make_config()
  objective = objectives.make_objective(config, config.stages.video, mesh)
  batch = tiny_runs.batch(rows=2)
  levels = np.array([[-7, -1, 4], [40, 40, 0.5]], np.float32)
  mask = np.array([[1, 1, 1], [0, 0, 1]], np.float32)
  rows = {
    'video': batch['video'],
    'label': batch['label'],
    'levels': levels,
    'loss_mask': mask,
    'key': jax.random.split(jax.random.key(5), 2),
  }
  total, count, sums = jax.jit(objective.loss)(
    silent(objective.abstract_params()), tiny_runs.autoencoder(), rows
  )
  # The network says v = 0: the error is v itself.
  alpha, sigma = coefficients(levels)
  x0 = latents(batch['video'])
  v = alpha * noise(rows['key'], x0.shape) - sigma * x0
  frames = (v**2).mean(axis=(2, 3, 4))
  np.testing.assert_allclose(total, (frames * mask).sum(), rtol=1e-5)
  assert count == 4
  # Edges -6 -3 0 3 6: frames -7, -1, 4 and 0.5.
  wanted = {
    'loss/logsnr_-inf_to_-6': frames[0, 0],
    'loss/logsnr_-3_to_+0': frames[0, 1],
    'loss/logsnr_+3_to_+6': frames[0, 2],
    'loss/logsnr_+0_to_+3': frames[1, 2],
  }
  assert set(sums) == set(latent_clips.bin_names(config.diffusion.bin_edges))
  for name, (value, number) in sums.items():
    assert number == (name in wanted), name
    np.testing.assert_allclose(value, wanted.get(name, 0), rtol=1e-5)


def test_validation_stands_beside_the_predictor_of_zero(mesh):
  config = tiny_runs.make_config(batch=2)
  config.diffusion.eval_levels = (-6.0, 0.0, 3.0)
  objective = objectives.make_objective(config, config.stages.video, mesh)
  clips = tiny_runs.batch(rows=3)  # The second piece is half padding.
  values = objective.validate(
    silent(objective.abstract_params()), tiny_runs.autoencoder(), clips
  )
  x0 = latents(clips['video'])
  eps = noise(jax.random.split(jax.random.key(config.seed), 3), x0.shape)
  losses = []
  for level in config.diffusion.eval_levels:
    alpha, sigma = coefficients(np.full((1, 1), level))
    loss = ((alpha * eps - sigma * x0) ** 2).mean()
    # On v's weighting, 1 + SNR, the error of x0 = 0 is that of its v.
    of_zero = (1 + np.exp(level)) * (x0**2).mean()
    found = values[f'val_loss/logsnr_{level:+g}']
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    found = values[f'val_loss_of_zero/logsnr_{level:+g}']
    np.testing.assert_allclose(found, of_zero, rtol=1e-5)
    losses.append(loss)
  np.testing.assert_allclose(values['val_loss'], np.mean(losses), rtol=1e-5)
  # A network that says nothing does not know labels.
  for name in ('', '/logsnr_-6', '/logsnr_+0', '/logsnr_+3'):
    with_labels = values[f'val_loss_labelled{name}']
    np.testing.assert_allclose(with_labels, values[f'val_loss{name}'])
  assert len(values) == 11
  config.model.num_classes = 0
  objective = objectives.make_objective(config, config.stages.video, mesh)
  values = objective.validate(
    silent(objective.abstract_params()), tiny_runs.autoencoder(), clips
  )
  assert len(values) == 7


def test_validation_is_with_the_clips_labels_and_without(mesh):
  config = tiny_runs.make_config(batch=4)
  config.diffusion.eval_levels = (0.0,)
  objective = objectives.make_objective(config, config.stages.video, mesh)
  params = tiny_runs.randomise(objective.abstract_params())
  clips = tiny_runs.batch(rows=4)

  def validate(label):
    labelled = clips | {'label': np.full(4, label, np.int32)}
    return objective.validate(params, tiny_runs.autoencoder(), labelled)

  null, one, two = map(validate, (-1, 0, 1))
  assert null['val_loss_labelled'] == null['val_loss']
  assert one['val_loss'] == two['val_loss'] == null['val_loss']
  different = {v['val_loss_labelled'] for v in (null, one, two)}
  assert len(different) == 3


def test_draws_depend_on_the_key_and_the_size_alone(mesh):
  config = tiny_runs.make_config(
    frame_levels=dict(shared=0.4, context=0.3, independent=0.3)
  )
  config.model.label_dropout = 0.25
  objective = objectives.make_objective(config, config.stages.video, mesh)
  draw = jax.jit(lambda batch, key: objective.draw(batch, key, 0))
  first, second = (tiny_runs.batch(rows=16, seed=s) for s in (0, 1))
  key = jax.random.key(0)
  one, two = draw(first, key), draw(second, key)
  other = draw(first, jax.random.key(1))
  for name in ('levels', 'loss_mask'):
    np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(one[name], other[name])
  assert (one['key'] == two['key']).all() and (one['key'] != other['key']).all()
  data = np.asarray(jax.random.key_data(one['key']))
  assert len(np.unique(data, axis=0)) == 16
  # Labels are dropped at the same places, and are otherwise the batch's.
  dropped = np.asarray(one['label'] == -1)
  np.testing.assert_array_equal(dropped, two['label'] == -1)
  assert 0 < dropped.sum() < 16
  np.testing.assert_array_equal(
    np.asarray(one['label'])[~dropped], first['label'][~dropped]
  )
  np.testing.assert_array_equal(one['video'], first['video'])


def test_label_dropout_has_its_share(mesh):
  config = tiny_runs.make_config(frames=1)
  config.model.label_dropout = 0.3
  objective = objectives.make_objective(config, config.stages.video, mesh)
  batch = tiny_runs.batch(rows=2000, frames=1, size=1)
  rows = jax.jit(objective.draw)(batch, jax.random.key(0), 0)
  share = np.mean(rows['label'] == -1)
  assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_every_condition_is_dropped_by_its_own_share():
  """The null of each is learned, and each alone."""
  model, n = schema.default().model, 4000
  model.update(label_dropout=0.1, scalar_dropout=0.3)
  model.text.dropout = 0.2
  batch = {
    'label': np.zeros(n, np.int32),
    'frame_rate': np.full(n, 12.0, np.float32),
    'motion': np.full(n, 0.1, np.float32),
    'words': np.ones((n, 5), np.int32),
  }
  told = videos.told(model, batch, jax.random.key(0))
  gone = {
    'label': np.asarray(told['label'] == -1),
    'frame_rate': np.isnan(told['frame_rate']),
    'motion': np.isnan(told['motion']),
    'words': (np.asarray(told['words']) != 1).all(1),
  }
  shares = {'label': 0.1, 'frame_rate': 0.3, 'motion': 0.3, 'words': 0.2}
  for name, share in shares.items():
    limit = 4 * (share * (1 - share) / n) ** 0.5
    assert abs(gone[name].mean() - share) < limit, name
  for one, other in itertools.combinations(shares, 2):
    both = shares[one] * shares[other]
    found = (gone[one] & gone[other]).mean()
    assert abs(found - both) < 4 * (both / n) ** 0.5, (one, other)


def test_given_frames_are_noised_as_the_stage_says(mesh):
  config = tiny_runs.make_config(frame_levels=dict(context=1.0))
  config.stages.video.context_noise = 0.3
  objective = objectives.make_objective(config, config.stages.video, mesh)
  rows = objective.draw(tiny_runs.batch(rows=64), jax.random.key(0), 0)
  held = np.asarray(rows['levels'])[np.asarray(rows['loss_mask']) == 0]
  sigma = coefficients(held)[1]
  assert sigma.max() <= 0.3 and (sigma > 0.1).any()


def test_temporal_parameters_are_held_on_single_frames(mesh):
  config = tiny_runs.make_config()
  objective = objectives.make_objective(config, config.stages.video, mesh)
  params = objective.abstract_params()
  free = stages.trained_paths(
    params, config.stages.video, objective.excluded_paths(True)
  )
  assert set(trees.flatten(params)) - set(free) == {
    path for path in trees.flatten(params) if 'temporal' in path
  }
  on_clips = stages.trained_paths(
    params, config.stages.video, objective.excluded_paths(False)
  )
  assert set(on_clips) == set(trees.flatten(params))


def test_a_blind_loss_is_refused(mesh):
  config = tiny_runs.make_config()
  config.diffusion.update(logsnr_min=-40.0, prediction='eps')
  with pytest.raises(ValueError, match='Zero terminal SNR'):
    objectives.make_objective(config, config.stages.video, mesh)


def test_bins_are_named_from_noise_to_clean():
  assert latent_clips.bin_names((-1.5, 2.0)) == [
    'loss/logsnr_-inf_to_-1.5',
    'loss/logsnr_-1.5_to_+2',
    'loss/logsnr_+2_to_+inf',
  ]


def test_chunks_are_all_of_one_size():
  arrays = (np.arange(5), np.arange(5) * 10)
  pieces = list(batching.chunks(arrays, 2))
  assert [n for _, n in pieces] == [2, 2, 1]
  assert [p[0].tolist() for p, _ in pieces] == [[0, 1], [2, 3], [4, 4]]
  assert pieces[2][0][1].tolist() == [40, 40]


@pytest.fixture(scope='module')
def codec(mesh):
  """The autoencoder's objective, its parameters and some clips."""
  config = schema.default()
  config.autoencoder.update(
    factor=4, channels=4, encoder_width=4, decoder_width=4, decoder_blocks=1
  )
  config.sample.num = 2
  config.stages.codec = schema.stage(objective='autoencoder', batch=2)
  objective = objectives.make_objective(config, config.stages.codec, mesh)
  clips = tiny_runs.batch(rows=3, frames=1, size=16)
  return objective, objective.init(jax.random.key(0), clips), clips


def test_the_components_are_fitted_and_held(codec):
  objective, params, _ = codec

  def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

  assert shapes(objective.abstract_params()) == shapes(params)
  stage = schema.stage(objective='autoencoder')
  free = stages.trained_paths(params, stage, objective.excluded_paths(False))
  held = trees.flatten(params).keys() - set(free)
  assert held == {'pca/basis', 'pca/mean', 'pca/scale'}
  assert not objective.inherits


def test_the_autoencoders_loss_adds_up_over_rows(codec):
  objective, params, clips = codec
  rows = objective.draw(clips, jax.random.key(1), 0)
  loss = jax.jit(objective.loss)
  total, count, sums = loss(params, {}, rows)
  assert count == 3
  parts = [
    loss(params, {}, jax.tree.map(lambda x, i=i: x[i : i + 1], rows))
    for i in range(3)
  ]
  np.testing.assert_allclose(total, sum(p[0] for p in parts), rtol=1e-5)
  for name, (value, number) in sums.items():
    assert number == 3
    wanted = sum(p[2][name][0] for p in parts)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)


def test_the_autoencoders_validation_is_the_psnr_of_what_it_shows(codec):
  objective, params, clips = codec
  value = objective.validate(params, {}, clips)['val_psnr']
  shown = objective.preview(params, {}, clips)
  assert set(shown) == {'real', 'reconstruction'}
  np.testing.assert_array_equal(shown['real'], clips['video'][:2])
  assert shown['reconstruction'].shape == (2, 1, 16, 16, 3)
  assert shown['reconstruction'].dtype == np.uint8
  # Over all three clips, from the pictures: rounded to whole grey levels.
  error = []
  for i in range(3):
    one = {k: v[i : i + 1] for k, v in clips.items()}
    picture = objective.preview(params, {}, one)['reconstruction']
    difference = picture.astype(float) - one['video']
    error.append(10 * np.log10(255**2 / np.mean(difference**2)))
  # Clipping to the range of pixels only ever helps: noise clips a little.
  np.testing.assert_allclose(value, np.mean(error), atol=0.3)
