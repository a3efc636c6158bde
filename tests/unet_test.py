"""The U-Net: an image model that a video model contains exactly."""

import re
import subprocess
import sys

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm.common import trees
from vdm.config import recipes
from vdm.config import schema
from vdm.models import embedding
from vdm.models import unet

LEVELS = np.array([[-3.0, 1.0, 6.0], [2.0, -20.0, 40.0]], np.float32)
LABELS = np.array([1, 3], np.int32)
NULL = np.array([-1, -1], np.int32)


def make_network(**changes):
  """Two levels with every kind of block, on latents of 3 channels."""
  options = schema.default().model
  options.update(widths=(8, 16), head_size=8, embed_width=8, num_classes=4)
  options.update(changes)
  return models.make_unet(options, 3)


# Compiles in a third of the time: the middle block between stem and head.
SMALL = dict(
  widths=(8,),
  blocks=(0,),
  attention_levels=(0,),
  temporal_levels=(0,),
  temporal_attention_levels=(0,),
)


def clips(rows=2, frames=3, height=4, width=4):
  shape = (rows, frames, height, width, 3)
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def abstract(network):
  return jax.eval_shape(network.init, jax.random.key(0))


def with_temporal(params, initial):
  """Parameters with the temporal ones as they were before training."""
  flat, initial = trees.flatten(params), trees.flatten(initial)
  return trees.unflatten(
    {p: initial[p] if 'temporal' in p else flat[p] for p in flat}
  )


class Case:
  """A network, compiled, before training, inflated and trained as a whole."""

  def __init__(self, network):
    self.initial = jax.jit(network.init)(jax.random.key(0))
    self.trained = tiny_runs.randomise(self.initial)
    self.inflated = with_temporal(self.trained, self.initial)
    self._apply = jax.jit(network.apply)
    self.network = network

  def __call__(self, params, z, levels=LEVELS, label=LABELS):
    return np.asarray(self._apply(params, z, levels, {'label': label}))

  def frame_by_frame(self, params, z):
    rows = z.reshape(-1, 1, *z.shape[2:])
    levels = LEVELS.reshape(-1, 1)
    return self(params, rows, levels, LABELS.repeat(3)).reshape(z.shape)


@pytest.fixture(scope='module')
def factorised():
  return Case(make_network())


@pytest.fixture(scope='module')
def full():
  return Case(make_network(convolution='full', **SMALL))


@pytest.fixture(scope='module')
def joint():
  return Case(
    make_network(
      blocks=(0, 1),
      temporal_levels=(1,),
      temporal_attention_levels=(),
      joint_levels=1,
      resample='linear',
    )
  )


@pytest.mark.parametrize('name', ['factorised', 'full'])
def test_output_is_zero_before_training(name, request):
  case = request.getfixturevalue(name)
  y = case(case.initial, clips())
  assert y.shape == clips().shape and y.dtype == np.float32
  np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize('name', ['factorised', 'full', 'joint'])
def test_an_inflated_image_model_is_itself_frame_by_frame(name, request):
  case, z = request.getfixturevalue(name), clips()
  y = case(case.inflated, z)
  # Float32 sums in another order, through some ten layers.
  np.testing.assert_allclose(
    y, case.frame_by_frame(case.inflated, z), rtol=1e-4, atol=2e-5
  )
  assert y.std() > 0.05  # There is something to be equal.


@pytest.mark.parametrize('name', ['factorised', 'full', 'joint'])
def test_frames_know_each_other_through_temporal_parameters_alone(
  name, request
):
  case, z = request.getfixturevalue(name), clips()
  other = z.copy()
  other[0, 1] += 1
  for params, seen in (
    (case.inflated, [False, True, False]),
    (case.trained, [True, True, True]),
  ):
    change = np.abs(case(params, z) - case(params, other)).max(axis=(2, 3, 4))
    # Rounding is a thousandth of that.
    np.testing.assert_array_equal(change[0] > 1e-4, seen)
    assert not change[1].any()  # The other clip's never do.


def test_a_frame_has_its_own_noise_level(factorised):
  z, levels = clips(), LEVELS.copy()
  levels[0, 2] = -1
  params = factorised.inflated
  change = factorised(params, z) - factorised(params, z, levels)
  change = np.abs(change).max(axis=(2, 3, 4))
  assert change[0, 2] > 1e-4
  change[0, 2] = 0
  assert not change.any()


def test_labels_are_per_clip_and_minus_one_is_the_null_row(factorised):
  z, params = clips(), factorised.trained
  table = np.array(params['embed_label'])
  assert table.shape == (5, 8)
  table[4] = table[1]  # The null label's row becomes that of class 1.
  same = {**params, 'embed_label': table}
  labelled = factorised(same, z, label=np.array([1, -1], np.int32))
  null = factorised(same, z, label=NULL)
  np.testing.assert_array_equal(labelled, null)
  change = factorised(params, z, label=NULL) - factorised(
    params, z, label=np.array([-1, 2], np.int32)
  )
  assert not change[0].any() and np.abs(change[1]).max() > 1e-3


def test_joint_attention_is_in_every_block_of_the_coarsest_levels():
  def blocks(**options):
    flat = trees.flatten(abstract(make_network(blocks=(1, 1), **options)))
    return {p.split('/')[0] for p in flat if 'temporal_joint' in p}

  middle = {'middle_block'}
  coarse = middle | {'down_1_block_0', 'up_1_block_0'}
  assert blocks() == middle
  assert blocks(joint_levels=1) == coarse
  assert blocks(joint_levels=2) == coarse | {'down_0_block_0', 'up_0_block_0'}
  assert not blocks(joint_levels=2, joint_attention=False)


def test_extreme_levels_stay_finite(factorised):
  levels = np.array([[-40, 40, 0], [40, -40, 40]], np.float32)
  assert np.isfinite(factorised(factorised.trained, clips(), levels)).all()
  features = embedding.level_features(jnp.asarray(levels), 8)
  assert features.shape == (2, 3, 8) and np.abs(features).max() <= 1
  line = embedding.level_features(jnp.linspace(-40, 40, 161)[None], 16)[0]
  # Neighbours half a unit apart differ where denoising is hard.
  apart = np.abs(np.diff(line, axis=0)).max(axis=1)
  assert apart[40:120].min() > 0.01


def test_single_frames_train_all_but_what_is_temporal(factorised):
  rows = clips(frames=1)

  def loss(params):
    out = factorised.network.apply(
      params, rows, LEVELS[:, :1], {'label': LABELS}
    )
    return jnp.square(out - rows).sum()

  grads = trees.flatten(jax.jit(jax.grad(loss))(factorised.trained))
  untouched = {path for path, grad in grads.items() if not np.any(grad)}
  assert untouched == {path for path in grads if unet.TEMPORAL in path}
  assert untouched


def test_other_lengths_and_sizes_need_no_other_parameters(factorised):
  for shape in ((1, 5, 6, 2), (3, 9, 4, 12)):
    z = jax.ShapeDtypeStruct((*shape, 3), jnp.bfloat16)
    levels = jax.ShapeDtypeStruct(shape[:2], jnp.float32)
    cond = {'label': jax.ShapeDtypeStruct(shape[:1], jnp.int32)}
    out = jax.eval_shape(
      factorised.network.apply, factorised.initial, z, levels, cond
    )
    assert (out.shape, out.dtype) == (z.shape, z.dtype)
  z = clips(1, 5, 6, 2)
  y = factorised(
    factorised.trained, z, np.zeros((1, 5), np.float32), LABELS[:1]
  )
  assert np.isfinite(y).all() and y.std() > 0.1


def test_patches_of_one_frame_are_the_network_without_them():
  """Trained on patches whose frames are alike, it is the same function."""
  one, two = make_network(**SMALL), make_network(**SMALL, time_patch=2)
  params = tiny_runs.randomise(jax.jit(one.init)(jax.random.key(0)))
  shapes = trees.flatten(abstract(two))
  # A repeated frame is half of each of its copies; both come out.
  halves = {
    'stem/kernel': lambda x: np.concatenate([x, x], axis=2) / 2,
    'embed_in/kernel': lambda x: np.concatenate([x, x], axis=0) / 2,
    'head_conv/kernel': lambda x: np.concatenate([x, x], axis=3),
    'head_conv/bias': lambda x: np.concatenate([x, x]),
  }
  repeated = {
    path: halves.get(path, np.asarray)(np.asarray(x))
    for path, x in trees.flatten(params).items()
  }
  assert {k: x.shape for k, x in repeated.items()} == {
    k: x.shape for k, x in shapes.items()
  }
  z = clips()
  expected = one.apply(params, z, LEVELS, {'label': LABELS})
  found = two.apply(
    trees.unflatten(repeated),
    z.repeat(2, axis=1),
    LEVELS.repeat(2, axis=1),
    {'label': LABELS},
  )
  np.testing.assert_allclose(
    found, np.asarray(expected).repeat(2, axis=1), rtol=1e-4, atol=1e-5
  )
  assert np.std(expected) > 0.05


def test_a_patch_is_told_the_level_of_each_of_its_frames():
  network = make_network(**SMALL, time_patch=3)
  params = tiny_runs.randomise(jax.jit(network.init)(jax.random.key(0)))
  apply = jax.jit(network.apply)
  found = [
    np.asarray(apply(params, clips(), levels, {'label': LABELS}))
    for levels in (LEVELS, LEVELS[:, [1, 0, 2]], LEVELS[:, [0, 2, 1]])
  ]
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert np.abs(found[i] - found[j]).max() > 1e-4  # Rounding: 1e-6.


def test_rematerialisation_changes_nothing_but_memory():
  z = clips()
  keys = jax.random.split(jax.random.key(3), 2)
  found = {}
  for remat in ('none', 'block', 'dots'):
    options = SMALL | dict(attention_levels=(), temporal_attention_levels=())
    network = make_network(remat=remat, dropout=0.2, **options)
    params = tiny_runs.randomise(abstract(network))

    def loss(params, network=network):
      out = network.apply(params, z, LEVELS, {'label': LABELS}, key=keys)
      return jnp.square(out - z).mean()

    gradient = jax.value_and_grad(loss)
    assert ('remat' in str(jax.make_jaxpr(gradient)(params))) == (
      remat != 'none'
    )
    found[remat] = jax.jit(gradient)(params)
  for remat in ('block', 'dots'):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      found[remat],
      found['none'],
    )


def test_without_classes_there_is_no_table():
  network = make_network()
  network = make_network(num_classes=0, **SMALL)
  params = abstract(network)
  assert 'embed_label' not in params
  z, levels = clips(), LEVELS
  out = jax.eval_shape(network.apply, params, z, levels, {})
  assert out.shape == z.shape


@pytest.mark.parametrize('convolution', ['factorised', 'full'])
def test_spatial_patterns_fit_kernels_and_norms_over_space(convolution):
  network = make_network(convolution=convolution)
  paths = list(trees.flatten(abstract(network)))
  fits = {p for p in paths if any(re.search(x, p) for x in recipes.SPATIAL)}
  # The rest: time, the projections of the conditioning, and what it is made of.
  rest = {p for p in paths if re.search('temporal|film|^embed_', p)}
  assert fits == set(paths) - rest
  for path in (
    'stem/kernel',
    'head_norm/scale',
    'down_1_resample/kernel',
    'down_0_block_0/spatial/conv_in/kernel',
    'up_1_block_0/spatial/norm_out/scale',
    'up_0_block_0/spatial/skip/kernel',
    'middle_block/attention/attention/qkv/kernel',
    'middle_block/attention/norm/bias',
  ):
    assert path in fits, path
  for path in (
    'embed_label',
    'embed_in/kernel',
    'middle_block/attention/film/linear/kernel',
    'middle_block/spatial/film/linear/bias',
    'middle_block/temporal_joint/attention/qkv/kernel',
    'middle_block/temporal_attention_0/norm/scale',
  ):
    assert path in rest, path
  kernel = 'middle_block/spatial/conv_in/temporal_kernel'
  assert (kernel in rest) == (convolution == 'full')


def test_the_patterns_are_read_without_jax():
  """Files in `configs/` hold them, and are read before a backend starts."""
  program = (
    'import sys; from vdm.config import recipes; assert recipes.SPATIAL; '
    'assert not {"jax", "flax"} & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', program], cwd=conftest.ROOT, check=True)


@pytest.mark.parametrize('pattern', recipes.SPATIAL)
def test_every_spatial_pattern_fits_something(pattern):
  paths = trees.flatten(abstract(make_network()))
  assert any(re.search(pattern, path) for path in paths)


@pytest.mark.parametrize(
  'name, millions',
  [
    ('tiny', 0.83),
    ('fine', 1.7),
    ('small', 21.2),
    ('base', 110.5),
    ('large', 287),
  ],
)
def test_presets_have_the_size_they_are_known_by(name, millions):
  options = schema.default().model
  options.update(num_classes=101, **recipes.NETWORKS[name])
  params = abstract(models.make_unet(options, 8))
  found = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
  np.testing.assert_allclose(found, millions, rtol=0.01)
