"""Frame rate and motion as conditions: measured, told, dropped and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_runs
from tests import tiny_source
from vdm import models
from vdm.common import trees
from vdm.config import check
from vdm.config import ranges
from vdm.config import schema
from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.data import scalars
from vdm.data import windowing
from vdm.data.synthetic import scenes
from vdm.diffusion import conditions

BOTH = ('frame_rate', 'motion')


def scene(index, **options):
  found = scenes.render(index, seed=0, resolution=64, frames=16, **options)
  speed = np.linalg.norm(found['truth']['velocity'][:, 0], axis=-1).mean()
  return found['frames'], speed / 64 * 25  # Frame widths a second, at 25.


def test_motion_is_the_speed_of_what_has_edges():
  pairs = []
  for i in range(24):
    video, speed = scene(i)
    pairs.append((scalars.motion(video, 25.0), speed))
    # Neither how often a clip is sampled changes it, nor its contrast or size.
    for other, rate in (
      (video[::2], 12.5),
      (video // 3 + 40, 25.0),
      (video.repeat(2, 1).repeat(2, 2), 25.0),
    ):
      assert scalars.motion(other, rate) == pytest.approx(pairs[-1][0], rel=0.1)
  found, speed = np.transpose(pairs)
  assert np.mean(found / speed) == pytest.approx(1, abs=0.05)
  assert np.corrcoef(found, speed)[0, 1] > 0.8
  # Twice as fast at twice the rate, still at any.
  video, _ = scene(0)
  fast = scalars.motion(video, 50.0) / scalars.motion(video, 25.0)
  assert fast == pytest.approx(2)
  assert scalars.motion(video[:1].repeat(16, 0), 25.0) == 0
  assert scalars.motion(np.zeros((2, 8, 8, 3), np.uint8), 25.0) == 0


def clips(lengths=(20, 20), **spec):
  spec = dict(frames=4, stride=1, resolution=8, stage='s', seed=1) | spec
  source = tiny_source.Source(lengths)
  windows = windowing.find_windows(source, clip_spec.ClipSpec(**spec))
  return source, clip_reader.TrainingClips(source, windows)


def test_a_stride_is_drawn_for_each_training_clip():
  _, drawn = clips(stride=2, max_stride=4, scalars=BOTH)
  counts = np.zeros(5, int)
  for number in range(300):
    arrays = drawn.read(number).arrays
    steps = np.diff(arrays['video'][:, 0, 0, 1].astype(int))
    assert (steps == steps[0]).all()
    assert arrays['frame_rate'] == np.float32(25 / steps[0])
    assert arrays['motion'] == np.float32(
      scalars.motion(arrays['video'], 25 / steps[0])
    )
    counts[steps[0]] += 1
  # Chi-square with 2 degrees of freedom: 13.8 is its 99.9 % quantile.
  assert np.sum((counts[2:] - 100) ** 2 / 100) < 13.8 and counts[:2].sum() == 0


def test_short_shots_have_the_largest_stride_that_they_allow():
  _, drawn = clips(lengths=(5, 8), max_stride=9)
  strides = {0: set(), 1: set()}
  for number in range(100):
    video = drawn.read(number).arrays['video']
    shot, steps = video[0, 0, 0, 0], np.diff(video[:, 0, 0, 1].astype(int))
    strides[int(shot)].add(int(steps[0]))
  assert strides == {0: {1}, 1: {1, 2}}


def test_one_stride_draws_the_clips_that_it_drew_before():
  _, before = clips(stride=2)
  _, after = clips(stride=2, max_stride=2, scalars=('frame_rate',))
  for number in range(20):
    one, other = before.read(number), after.read(number)
    np.testing.assert_array_equal(one.arrays['video'], other.arrays['video'])
    assert other.arrays['frame_rate'] == 12.5
    assert one.arrays.keys() == {'video', 'label'}


def test_clips_to_measure_on_have_one_rate():
  source, drawn = clips(stride=2, max_stride=4, scalars=BOTH)
  found = eval_clips.load_clips(source, drawn.windows.spec, 5)
  assert (found['frame_rate'] == 12.5).all()
  assert found['motion'].tolist() == [
    pytest.approx(scalars.motion(x, 12.5)) for x in found['video']
  ]


def test_each_number_is_dropped_by_itself():
  rows = 4000
  cond = {name: jnp.ones(rows) for name in BOTH} | {
    'label': jnp.zeros(rows, jnp.int32)
  }
  shares = dict.fromkeys((*BOTH, 'label'), 0.3)
  dropped = conditions.drop(cond, jax.random.key(0), shares)
  gone = np.stack(
    [np.isnan(dropped['frame_rate']), np.isnan(dropped['motion'])]
    + [np.asarray(dropped['label']) < 0]
  )
  # Four standard deviations of a binomial share.
  assert np.abs(gone.mean(1) - 0.3).max() < 4 * np.sqrt(0.21 / rows)
  assert np.abs(np.corrcoef(gone) - np.eye(3)).max() < 4 / np.sqrt(rows)
  # Guidance contrasts labels, of clips of the same rate and motion.
  without = conditions.without(cond, ('label', 'text'))
  assert (without['label'] == -1).all() and (without['motion'] == 1).all()
  assert np.isnan(conditions.null(cond)['motion']).all()


@pytest.fixture(scope='module')
def networks():
  """{names of scalars: (apply, parameters)}, alike but for what is new."""
  found = {}
  for names in ((), BOTH):
    config = tiny_runs.make_config()
    config.model.scalars = names
    network = models.make_unet(config.model, 3)
    params = tiny_runs.randomise(network.abstract_params())
    found[names] = jax.jit(network.apply), params
  return found


def outputs(apply, params, frames=3, **cond):
  random = np.random.default_rng(0)
  z = random.normal(size=(2, frames, 4, 4, 3)).astype(np.float32)
  cond = {k: np.float32(v) for k, v in cond.items()}
  cond['label'] = np.array([0, 1], np.int32)
  return np.asarray(apply(params, z, np.zeros((2, frames), 'f'), cond))


def test_a_network_that_gains_scalars_computes_what_it_did(networks):
  (old, old_params), (new, _) = networks[()], networks[BOTH]
  network = models.make_unet(_model(), 3)
  started = trees.flatten(network.init(jax.random.key(0)))
  added = started.keys() - trees.flatten(old_params).keys()
  assert added == {
    f'embed_temporal_{name}/{part}'
    for name in BOTH
    for part in ('kernel', 'bias')
  }
  assert not any(np.any(started[path]) for path in added)
  merged = trees.flatten(old_params) | {path: started[path] for path in added}
  told = outputs(
    new, trees.unflatten(merged), frame_rate=[10, 20], motion=[0.1, 2]
  )
  np.testing.assert_array_equal(told, outputs(old, old_params))


def _model():
  config = tiny_runs.make_config()
  config.model.scalars = BOTH
  return config.model


def test_a_trained_network_follows_them_and_nothing_else(networks):
  apply, params = networks[BOTH]
  told = outputs(apply, params, frame_rate=[10, 20], motion=[0.1, 2])
  other = outputs(apply, params, frame_rate=[10, 12], motion=[0.1, 2])
  np.testing.assert_array_equal(told[0], other[0])
  assert np.abs(told[1] - other[1]).max() > 1e-3
  nan = [np.nan, np.nan]
  null = outputs(apply, params, frame_rate=nan, motion=nan)
  assert np.isfinite(null).all()
  np.testing.assert_array_equal(null, outputs(apply, params))  # Left out.
  assert np.abs(null - told).max() > 1e-3
  # An image has neither rate nor motion.
  np.testing.assert_array_equal(
    outputs(apply, params, 1, frame_rate=[10, 20], motion=[0.1, 2]),
    outputs(apply, params, 1),
  )


def test_unknown_numbers_have_finite_gradients():
  network = models.make_unet(_model(), 3)
  params = tiny_runs.randomise(network.abstract_params())

  def loss(params):
    cond = {'label': jnp.zeros(2, jnp.int32), 'motion': jnp.array([jnp.nan, 0])}
    embedding = network.apply(
      params, jnp.ones((2, 2, 4, 4, 3)), jnp.zeros((2, 2)), cond
    )
    return jnp.square(embedding).mean()

  grads = trees.flatten(jax.jit(jax.grad(loss))(params))
  assert all(np.isfinite(x).all() for x in grads.values())
  assert np.any(grads['embed_temporal_motion/kernel'])
  # Nobody was told a rate: its matrix learns nothing.
  assert not np.any(grads['embed_temporal_frame_rate/kernel'])


def config_of(data=(), **model):
  config = schema.default()
  config.autoencoder.kind = 'pca'
  config.data.update({'name': 'driving', **dict(data)})
  config.model.update(**model)
  config.train.order = ('video',)
  config.stages.video = schema.stage(steps=200, frames=16)
  return config


@pytest.mark.parametrize(
  'data, model, words',
  [
    ({'stride': 2, 'max_stride': 1}, {}, 'max_stride=1 is below stride=2'),
    ({}, {'scalars': ('frame_rate',)}, 'all clips have one: set config.data'),
    ({}, {'scalars': ('motion',), 'scalar_dropout': 0.0}, 'never learns to do'),
    ({'latents': 'l'}, {'scalars': ('motion',)}, 'measured on frames'),
    ({}, {'scalars': ('speed',)}, 'not one of frame_rate, motion'),
    (
      {'name': 'synthetic_scenes', 'max_stride': 2},
      {},
      'at stride 2 spans 31 frames',
    ),
  ],
)
def test_what_cannot_be_learnt_is_refused(data, model, words):
  with pytest.raises(ValueError, match=words):
    check.validate(config_of(data, **model))


def test_values_are_those_of_training():
  config = config_of(
    {'frame_rate': 24.0, 'stride': 2, 'max_stride': 4},
    scalars=BOTH,
    motion_range=(0.05, 1.2),
  )
  check.validate(config)
  assert ranges.trained(config) == {
    'frame_rate': (6.0, 12.0),
    'motion': (0.05, 1.2),
  }
  for name, value in (('frame_rate', 6), ('frame_rate', 12), ('motion', 0.05)):
    assert not ranges.problem(config, name, value)
  problem = ranges.problem(config, 'motion', 3.0)
  assert problem == (
    '--motion=3 is outside of what the run was trained with, 0.05 to 1.2 frame '
    'widths a second.'
  )
  assert 'to 12 frames a second' in ranges.problem(config, 'frame_rate', 24)
  config.model.scalars = ('frame_rate',)
  assert 'model.scalars: frame_rate' in ranges.problem(config, 'motion', 0.1)
