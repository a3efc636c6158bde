"""Consistency models against the paper's formulas and Gaussian closed forms.

Of x0 ~ N(m, C) the probability flow is affine: with y = z / alpha at time t it
ends at m + C^1/2 (C + t^2)^-1/2 (y - m), which is the consistency function.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import generate
from vdm import models
from vdm.config import rules
from vdm.config import sampling
from vdm.config import schema
from vdm.diffusion import consistency
from vdm.diffusion import process
from vdm.diffusion import rollouts
from vdm.sampling import task_plan
from vdm.training import objectives
from vdm.training import sharding

SPREAD = 0.6  # Deviation of the values of the Gaussian clips.


def make_config(**stage):
  """A tiny run with a consistency stage alone, in pixels."""
  config = tiny_runs.make_config(objective='consistency', **stage)
  config.train.init_from = 'elsewhere'
  return config


def time_of(levels):
  return jnp.exp(-process.at_least_float32(levels) / 2)


def test_the_schedule_is_that_of_the_paper():
  """r = t (1 - n(t) / q^a), n(t) = 1 + 8 / (1 + exp(t)), in float64."""
  t = np.geomspace(0.01, 60, 57)
  levels = (-2 * np.log(t)).astype(np.float32)[None]
  for q, a in ((2.0, 1), (2.0, 2), (2.0, 8), (4.0, 3), (256.0, 1)):
    wanted = np.maximum(t - t * (1 + 8 / (1 + np.exp(t))) / q**a, 0)
    found = consistency.earlier(levels, np.ones_like(levels), a, q)[0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found == process.CLEAN, wanted == 0)
    some = wanted > 0
    np.testing.assert_allclose(
      np.exp(-np.asarray(found, float) / 2)[some], wanted[some], rtol=1e-4
    )
  # At first the noisiest alone have another target than the clip itself.
  first = consistency.earlier(levels, np.ones_like(levels), 1, 2.0)[0]
  assert set(t[first < process.CLEAN]) == set(t[t > np.log(7)])


def test_the_gap_shrinks_at_even_intervals():
  for steps, times in ((800, 5), (10, 4), (3, 8)):
    found = [int(consistency.tightness(n, steps, times)) for n in range(steps)]
    # The paper's ceiling of the share done, where a stage ends at its end.
    shares = (np.arange(steps) + 1e-9) / steps
    np.testing.assert_array_equal(found, np.ceil(times * shares))
  assert int(consistency.tightness(jnp.int32(99), 10, 4)) == 4


def test_given_frames_keep_their_level():
  levels = np.array([[process.CLEAN, 3.7, -4.0]], np.float32)
  mask = np.array([[0, 0, 1]], np.float32)
  found = consistency.earlier(levels, mask, 3, 2.0)
  np.testing.assert_array_equal(found[0, :2], levels[0, :2])
  assert -4 < found[0, 2] < process.CLEAN


@pytest.mark.parametrize('kind', consistency.PREDICTIONS)
def test_at_clean_it_is_the_clip_itself(kind):
  z, output = (
    5 * process.noise(jax.random.key(i), (1, 3, 4, 4, 2)) for i in range(2)
  )
  levels = np.array([[process.CLEAN, 30.0, 12.0]], np.float32)
  value = consistency.function(kind, output, z, levels, 0.5)
  assert np.array_equal(value[:, 0], z[:, 0])
  # And near it nearly so: the rest vanishes with sigma.
  for frame, bound in ((1, 1e-5), (2, 0.1)):
    error = np.abs(value[:, frame] - z[:, frame]).max()
    assert error < bound
  assert error > 1e-3


def test_the_loss_is_a_pseudo_huber_distance():
  random = np.random.default_rng(0)
  value, target = random.normal(size=(2, 2, 3, 4, 4, 2)).astype(np.float32)
  levels = np.array([[-3, 0, 2], [1, process.CLEAN, -7]], np.float32)
  mask = np.array([[1, 1, 1], [1, 0, 1]], np.float32)
  total, count, frames = consistency.loss(value, target, levels, mask, 'v', 0.3)
  error = ((value - target).astype(float) ** 2).mean(axis=(2, 3, 4))
  wanted = mask * (1 + np.exp(levels)) * (np.sqrt(error + 0.3**2) - 0.3)
  np.testing.assert_allclose(frames, wanted, rtol=1e-5)
  np.testing.assert_allclose(total, wanted.sum(), rtol=1e-5)
  assert count == 5

  def scaled(factor):
    return consistency.loss(factor * value, value, levels, mask, 'v', 1e-3)[0]

  # Where the two are equal it has no slope, and no NaN.
  assert jax.grad(scaled)(1.0) == 0


# Trained by the objective.


def gaussian(label):
  """Mean of a clip of a class; 0 without one, at the null label."""
  return 0.5 * (label + 1.0)


def exact_network(params, z, levels, cond, key=None):
  """As v: E[x0 | z] of a class for `student` 0; else the guided function."""
  alpha, _ = process.alpha_sigma(process.per_frame(levels, z))
  t, y = time_of(process.per_frame(levels, z)), z / alpha
  mean = gaussian(cond['label'])[:, None, None, None, None]
  total = SPREAD**2 + t**2
  denoised = mean + SPREAD**2 / total * (y - mean)
  # Guidance of scale 2 doubles the distance of means from that of no class.
  flowed = 2 * mean + SPREAD / jnp.sqrt(total) * (y - 2 * mean)
  x0 = jnp.where(params['student'] > 0, flowed, denoised)
  return process.convert('x0', 'v', x0, z, levels)


def test_the_loss_vanishes_at_the_function_of_the_guided_flow(monkeypatch):
  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, exact_network)
  )
  config = make_config(
    steps=6, frame_levels=dict(shared=0.5, context=0.3, independent=0.2)
  )
  config.consistency.update(times=6, guidance=2.0)
  config.diffusion.weighting = 'x0'
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(config, config.stages.video, mesh)
  frozen = tiny_runs.autoencoder() | {'teacher': {'student': np.float32(0)}}
  batch = tiny_runs.batch(rows=64)

  @jax.jit
  def loss(student, n):
    rows = objective.draw(batch, jax.random.key(3), n)
    total, count, _ = objective.loss({'student': student}, frozen, rows)
    return total / count

  exact = [float(loss(1.0, n)) for n in range(6)]
  # One step of Euler errs by the square of its length, which halves. (Before,
  # some r are 0; after, errors are below what the metric takes as Huber's.)
  ratios = np.divide(exact[2:4], exact[3:5])
  assert ((ratios > 3.5) & (ratios < 6)).all(), exact
  assert exact[5] < 1e-3
  # What is not that function is far from it: the denoiser, without guidance.
  assert float(loss(0.0, 5)) > 10 * exact[5]


@pytest.fixture(scope='module')
def one_device():
  run = tiny_runs.Run(sharded_config())
  return run, *run.train(BATCHES)


BATCHES = [tiny_runs.batch(seed=seed) for seed in range(3)]


def sharded_config():
  config = make_config(
    frame_levels=dict(shared=0.4, context=0.4, independent=0.2),
    learning_rate=1e-2,
    steps=200,
  )
  config.model.update(dropout=0.2, label_dropout=0.3)
  config.consistency.times = 1
  return config


def test_eight_devices_train_as_one(one_device):
  _, state, metrics = one_device
  run = tiny_runs.Run(sharded_config(), devices=8, fsdp=2)
  found, others = run.train(BATCHES)
  for ours, theirs in zip(others, metrics):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
      np.testing.assert_allclose(
        value, theirs[name], rtol=2e-4, atol=1e-5, err_msg=name
      )
  # As in train_step_test: where a gradient nearly cancels, rounding decides.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-3),
    found.params,
    state.params,
  )


def test_a_network_learns_it(one_device):
  run, *_ = one_device
  _, metrics = run.train([BATCHES[0]] * 200)
  losses = [m['loss'][0] / m['loss'][1] for m in metrics]
  assert np.mean(losses[-30:]) < 0.6 * np.mean(losses[:10]), losses


# Sampled from.

RHO, SIDE, NUM, LENGTH = 0.8, 16, 16, 4
SCALE = 0.2  # Of pixels.
SAMPLES = NUM * SIDE * SIDE * 3
TOLERANCE = 5 * (2 / SAMPLES) ** 0.5
FROZEN = {
  'params': {},
  'stats': {'mean': np.zeros(3, 'f'), 'scale': np.full(3, SCALE, 'f')},
}


def covariance(frames):
  index = np.arange(frames)
  return RHO ** np.abs(index[:, None] - index)


def flow_of_frames(params, z, levels, cond, key=None):
  """The consistency function of correlated frames, given those at CLEAN."""
  del params, cond, key
  whole = jnp.asarray(covariance(z.shape[1]), z.dtype)
  held = jnp.diag((levels[0] >= process.CLEAN).astype(z.dtype))
  free = jnp.eye(z.shape[1]) - held
  # The law of free frames given the held: pull them, Schur complement.
  inverse = held @ jnp.linalg.inv(held @ whole @ held + free) @ held
  pull, schur = whole @ inverse, whole - whole @ inverse @ whole
  values, vectors = jnp.linalg.eigh(free @ schur @ free)
  values = jnp.maximum(values, 0)
  t = time_of(jnp.min(levels))
  y = z / process.alpha_sigma(process.per_frame(levels, z))[0]
  mean = jnp.einsum('tu,buhwc->bthwc', pull, y)
  gain = vectors @ jnp.diag(jnp.sqrt(values / (values + t**2))) @ vectors.T
  x0 = mean + jnp.einsum('tu,buhwc->bthwc', gain, free_part(free, y - mean))
  return process.convert('x0', 'v', x0, z, levels)


def free_part(free, y):
  return jnp.einsum('tu,buhwc->bthwc', free, y)


@pytest.fixture
def make_videos(monkeypatch):
  """Function of steps and a task that returns latents by frame."""
  monkeypatch.setattr(
    models, 'make_unet', lambda *_: models.Network(dict, flow_of_frames)
  )

  def make(steps, task=rollouts.PLAIN, given=None):
    config = make_config(
      frames=LENGTH,
      resolution=SIDE,
      frame_levels=dict(shared=0.4, context=0.3, independent=0.3),
    )
    config.model.num_classes = 0
    config.consistency.steps = steps
    stage = config.stages.video
    maker = generate.make_generator(sampling.of_stage(config, stage), stage)
    videos = maker.samples(
      {}, FROZEN, {'label': np.full(NUM, -1)}, np.arange(NUM), task, given
    )
    z = (videos / 127.5 - 1.0) / SCALE
    return np.moveaxis(z, 1, 0).reshape(z.shape[1], -1), videos

  return make


@pytest.mark.parametrize('steps', [1, 2, 4])
def test_few_steps_have_the_law_of_the_clips(steps, make_videos):
  z, _ = make_videos(steps)
  np.testing.assert_allclose(z.mean(1), 0, atol=TOLERANCE)
  np.testing.assert_allclose(np.cov(z), covariance(LENGTH), atol=TOLERANCE)


def test_given_frames_stay_and_the_others_follow_them(make_videos):
  random = np.random.default_rng(5)
  pixels = SCALE * random.normal(size=(NUM, 1, SIDE, SIDE, 3))
  given = np.round((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)
  z, videos = make_videos(2, rollouts.Task(given=(0,)), given)
  np.testing.assert_array_equal(videos[:, :1], given)
  np.testing.assert_allclose(np.cov(z), covariance(LENGTH), atol=TOLERANCE)


def test_a_rollout_in_one_step_has_the_law_of_a_long_video(make_videos):
  z, _ = make_videos(1, rollouts.Task(frames=6, context_noise=0.0))
  np.testing.assert_allclose(np.cov(z), covariance(6), atol=TOLERANCE)


# Refused.


def test_it_is_not_guided(make_videos):
  config = make_config()
  stage = config.stages.video
  with pytest.raises(ValueError, match='cannot be guided, since'):
    generate.make_generator(config, stage)
  own = sampling.of_stage(config, stage)
  assert (own.sample.method, own.sample.guidance) == ('consistency', 1.0)
  assert config.sample.guidance == 2.0
  generate.make_generator(own, stage)
  with pytest.raises(ValueError, match='cannot be guided by held frames'):
    task_plan.make(own, stage, rollouts.Task(frames=6, history_guidance=2.0))
  with pytest.raises(ValueError, match='cannot be guided, since'):
    generate.make_generator(own, stage, worse=generate.Average(own, {}, 0, ''))


def test_other_stages_are_sampled_as_the_configuration_says():
  config = tiny_runs.make_config()
  assert sampling.of_stage(config, config.stages.video) is config


@pytest.mark.parametrize(
  'changes, problem',
  [
    ({}, ''),
    ({'train.init_from': ''}, 'nothing that it could start from'),
    ({'diffusion.prediction': 'x0'}, 'train with v, flow or edm'),
    ({'diffusion.prediction': 'eps'}, 'train with v, flow or edm'),
    ({'model.label_dropout': 0.0}, 'which config.consistency.guidance=2 needs'),
    ({'consistency.tighten': 0.5}, ''),
  ],
)
def test_rules(changes, problem):
  config = make_config()
  config.sample.guidance = 1.0
  config.update_from_flattened_dict(changes)
  found = list(rules.problems(config))
  assert len(found) == bool(problem) and problem in ''.join(found)
  key = schema.keys()['consistency.tighten']
  assert bool(key.problem(config.consistency.tighten)) == (
    'consistency.tighten' in changes
  )


def test_it_comes_after_diffusion():
  config = make_config()
  config.stages.before = schema.stage(frames=3, resolution=4, steps=200)
  config.sample.guidance = 1.0
  config.train.order = ('video', 'before')
  assert 'another order than autoencoder, diffusion, consistency' in ''.join(
    rules.problems(config)
  )
  config.train.update(order=('before', 'video'), init_from='')
  assert not list(rules.problems(config))
