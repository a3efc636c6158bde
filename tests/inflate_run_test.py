"""Runs that start from an image model, from its file to samples of videos.

A small ADM is trained by this project on single frames, written under its
published names, and read as if it had been published. What trains is slow, some
minutes on two cores:

    bash launch/test.sh -m slow tests/inflate_run_test.py
"""

import json
import pathlib

from absl import flags
from absl.testing import flagsaver
from config_variants_test import get_config
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm import models
from vdm import sample
from vdm import train
from vdm import trained
from vdm.checkpoints import manager
from vdm.common import errors
from vdm.common import trees
from vdm.config import image_model_rules
from vdm.config import schema
from vdm.models import safetensors
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.image_unets import inflated
from vdm.models.image_unets import names
from vdm.models.image_unets import published
from vdm.planning import costs
from vdm.planning import report
from vdm.planning import targets
from vdm.publishing import export
from vdm.publishing import image_model
from vdm.trained import image_models
from vdm.training import objectives
from vdm.training import packing
from vdm.training import sharding
from vdm.training import train_state
from vdm.training import train_step

DESCRIPTION = dict(
  num_channels=8,
  num_res_blocks=1,
  channel_mult='1',
  attention_resolutions='',
  num_heads=2,
  class_cond=True,
  num_classes=8,
  norm_groups=4,
)
TEXT = dict(
  in_channels=3,
  out_channels=3,
  block_out_channels=[8],
  norm_num_groups=4,
  down_block_types=['CrossAttnDownBlock2D'],
  up_block_types=['CrossAttnUpBlock2D'],
)
CLIP = (1, 3, 16, 16, 3)


def make_config(root, order, **model):
  """A run in pixels on scenes of 16 px with the stages of `order`."""
  config = schema.default()
  config.data.update(root=str(root), resolution=16, threads=1)
  config.data.scenes.update(train=24, validation=8, frames=4)
  config.autoencoder.update(kind='identity', scale='none', statistics_clips=8)
  config.model.update(
    kind='adm',
    temporal_levels=(0,),
    temporal_attention_levels=(),
    joint_attention=False,
    head_size=8,
    embed_width=8,
    num_classes=8,
  )
  config.model.update(model)
  config.diffusion.update(prediction='eps', weighting='eps')
  config.optim.ema = (0.1,)
  config.sample.update(steps=2, num=2, batch=8, final=2)
  config.score.every = 0
  config.train.update(
    order=order,
    compute_dtype='bfloat16',
    log_every=1,
    eval_every=100,
    eval_clips=4,
    preview_every=100,
    save_every=2,
    tensorboard=False,
  )
  stage = dict(resolution=16, batch=8, warmup=1, learning_rate=1e-2)
  all_stages = dict(
    image=dict(steps=2),
    motion=dict(steps=3, frames=4, frozen=(inflated.IMAGE,)),
    all=dict(steps=1, frames=4),
  )
  for name in order:
    config.stages[name] = schema.stage(**stage | all_stages[name])
  return config


class Runs:
  """Runs of a folder, by name."""

  def __init__(self, folder, data_root):
    self.folder, self.root = folder, data_root

  def train(self, name, order, **model):
    config = make_config(self.root, order, **model)
    assert train.train(config, self.folder / name) == 0
    return config


def publish(folder, flat):
  """Writes parameters that no run has, as if they were a published model's."""
  folder.mkdir()
  text = json.dumps(DESCRIPTION)
  layers = names.table(inflated.parse('adm', text))
  flat = {k: np.asarray(v, np.float32) for k, v in flat.items()}
  tensors = names.to_published(layers, 'original', flat)
  (folder / 'model.safetensors').write_bytes(safetensors.to_bytes(tensors, {}))
  (folder / 'config.json').write_text(text)


def flat_image(source):
  params = trained.load(source).params
  return trees.flatten(params['image'])


@pytest.fixture(scope='module')
def runs(tmp_path_factory, data_root):
  return Runs(tmp_path_factory.mktemp('runs'), data_root)


@pytest.fixture(scope='module')
def image(runs):
  """(run of an image model, its folder in the published layout)."""
  text = json.dumps(DESCRIPTION)
  runs.train('image', ('image',), architecture=text)
  folder = runs.folder / 'published'
  image_model.write(runs.folder / 'image', folder)
  return runs.folder / 'image', folder


@pytest.fixture(scope='module')
def motion(runs, image):
  """The folder of a run that has trained temporal branches alone."""
  weights = str(image[1] / 'model.safetensors')
  runs.train('motion', ('motion',), weights=weights)
  return runs.folder / 'motion'


def predict(source, frames=1, params=None):
  """The prediction of a trained model in float32."""
  model = trained.load(source)
  network = models.make_unet(model.config.model, 3)
  random = np.random.RandomState(0)
  z = random.standard_normal(CLIP).astype('f')[:, :frames]
  levels = np.full((1, frames), 0.7, np.float32)
  values = trees.flatten(model.params if params is None else params)
  # Both in float32: this one program is for all of them.
  values = {k: np.asarray(v, np.float32) for k, v in values.items()}
  cond = {'label': np.array([3])}
  return np.asarray(
    jax.jit(network.apply)(trees.unflatten(values), z, levels, cond)
  )


@pytest.mark.slow
def test_what_was_exported_is_imported(image, motion):
  source, _ = image
  before, after = flat_image(source), flat_image(motion)
  assert before.keys() == after.keys()
  for path, array in before.items():
    frozen = after[path]
    kept = np.float32 if array.ndim == 1 else jnp.bfloat16
    assert frozen.dtype == kept, path
    np.testing.assert_array_equal(frozen, array.astype(kept), err_msg=path)


@pytest.mark.slow
def test_single_frames_are_those_of_the_image_model(image, motion):
  source, _ = image
  model = trained.load(motion)
  temporal = trees.flatten(model.params['temporal'])
  changed = [k for k, v in temporal.items() if k.endswith('out/kernel')]
  assert changed and all(np.abs(temporal[k]).max() > 0 for k in changed)
  # The image model with the rounding of what is stored, one program.
  kept = flat_image(motion)
  rounded = {
    k: np.asarray(v).astype(kept[k].dtype)
    for k, v in flat_image(source).items()
  }
  params = {'image': trees.unflatten(rounded), 'temporal': {}}
  params['temporal'] = trained.load(source).params['temporal']
  single = predict(motion)
  np.testing.assert_array_equal(predict(source, params=params), single)
  assert single.std() > 0.05
  # With several frames they differ from it, as the branches have been trained.
  assert np.abs(predict(motion, 3) - predict(source, 3, params)).max() > 1e-4


@pytest.mark.slow
def test_the_frozen_half_has_no_moments_and_no_averages(motion):
  with manager.Checkpoints(motion / 'checkpoints', read_only=True) as store:
    _, slots, _ = store.restore_item('opt_state')
    _, averages, _ = store.restore_item('ema')
    _, params, _ = store.restore_item('params')
  flat = trees.flatten(params)
  temporal = {path for path in flat if not path.startswith('image/')}
  assert slots.keys() == temporal and len(temporal) < len(flat)
  assert all(average.keys() == temporal for average in averages.values())


@pytest.mark.slow
def test_a_run_that_was_stopped_needs_no_file_again(runs, image, motion):
  """It resumes with the same numbers."""
  folder_of_weights = image[1]
  kept = folder_of_weights.with_name('gone')
  config = make_config(
    runs.root, ('motion',), weights=str(folder_of_weights / 'model.safetensors')
  )
  config.stages.motion.steps = 2
  config.stages.motion.cooldown = 0.0
  folder = runs.folder / 'stopped'
  assert train.train(config, folder) == 0
  folder_of_weights.rename(kept)
  try:
    config.stages.motion.steps = 3
    assert train.train(config, folder) == 0
  finally:
    kept.rename(folder_of_weights)
  found, whole = (
    trees.flatten(trained.load(x).params) for x in (folder, motion)
  )
  assert found.keys() == whole.keys()
  for path, array in flat_image(motion).items():
    np.testing.assert_array_equal(found[f'image/{path}'], array)


@pytest.mark.slow
def test_branches_move_to_another_image_model(runs, image, motion):
  """`train.init_from` brings them along, and not the image model."""
  source, folder_of_weights = image
  other = runs.folder / 'other'
  other.mkdir()
  file = 'model.safetensors'
  tensors = safetensors.parse((folder_of_weights / file).read_bytes())
  tensors = {k: v + np.float32(0.5) for k, v in tensors.items()}
  (other / file).write_bytes(safetensors.to_bytes(tensors, {}))
  (other / 'config.json').write_text(json.dumps(DESCRIPTION))
  config = make_config(runs.root, ('motion',), weights=str(other / file))
  config.train.init_from = str(motion)
  config.stages.motion.update(steps=1, learning_rate=1e-12)
  folder = runs.folder / 'moved'
  assert train.train(config, folder) == 0
  found = trees.flatten(trained.load(folder).params)
  expected = trees.flatten(trained.load(motion).params['temporal'])
  for path, array in expected.items():
    np.testing.assert_allclose(found[f'temporal/{path}'], array, atol=1e-6)
  stem = flat_image(source)['stem/bias'] + 0.5
  np.testing.assert_allclose(found['image/stem/bias'], stem, atol=1e-6)


def test_everything_is_trained_where_a_stage_does():
  config = make_config('unused', ('motion', 'all'), architecture='{}')
  assert image_model_rules.constant_patterns(config) == ()
  config = make_config('unused', ('motion',), architecture='{}')
  assert image_model_rules.constant_patterns(config) == (inflated.IMAGE,)
  config.model.kind = 'unet'  # As in versions without image models.
  assert image_model_rules.constant_patterns(config) == ()


@pytest.mark.slow
def test_adapters_are_merged_on_export(runs, image):
  weights = str(image[1] / 'model.safetensors')
  runs.train('adapters', ('motion',), weights=weights, adapter_rank=2)
  folder = runs.folder / 'adapters'
  params = trained.load(folder).params
  ups = [v for k, v in trees.flatten(params['adapters']).items() if 'up' in k]
  assert ups and all(np.abs(x).max() > 0 for x in ups)
  out = runs.folder / 'exported'
  export.write(folder, out, export.Options(samples=1))
  exported = trained.load(out)
  assert exported.config.model.adapter_rank == 0
  assert exported.params.keys() == {'image', 'temporal'}
  single = predict(folder)
  np.testing.assert_allclose(predict(out), single, atol=1e-5)
  assert np.abs(predict(image[0]) - single).max() > 1e-3


@pytest.mark.slow
def test_branches_alone_are_exported_and_put_on_an_image_model(runs, image):
  weights = str(image[1] / 'model.safetensors')
  runs.train('lora', ('motion',), weights=weights, adapter_rank=2)
  folder, out = runs.folder / 'lora', runs.folder / 'branches'
  export.write(folder, out, export.Options(samples=1, branches=True))
  whole = trained.load(folder)
  with pytest.raises(errors.UsageError, match='name the file of that model'):
    trained.load(out)
  alone = trained.load_trained(out)
  assert alone.params.keys() == {'temporal', 'adapters'}
  # On the image model that they were trained on they are the run.
  found = trained.load(out, image_model=weights)
  flat, expected = trees.flatten(found.params), trees.flatten(whole.params)
  assert flat.keys() == expected.keys()
  for path, array in expected.items():
    kept = flat[path].astype(array.dtype)
    np.testing.assert_array_equal(kept, array, err_msg=path)
  flags.FLAGS.mark_as_parsed()
  samples = runs.folder / 'from_branches'
  with flagsaver.flagsaver(
    workdir=str(out), out=str(samples), image_model=weights, num=1
  ):
    sample.main([])
  record = json.loads((samples / 'samples.json').read_text())
  assert record['image_model'] == weights
  text = (out / 'README.md').read_text()
  assert 'is not in these files' in text and '--image_model' in text
  assert 'trained on `model.safetensors`' in text
  # Another run goes on from them.
  config = make_config(runs.root, ('motion',), weights=weights, adapter_rank=2)
  config.train.init_from = str(out)
  config.stages.motion.update(steps=1, learning_rate=1e-12)
  assert train.train(config, runs.folder / 'onward') == 0
  onward = trees.flatten(trained.load(runs.folder / 'onward').params)
  for path, array in trees.flatten(alone.params).items():
    np.testing.assert_allclose(onward[path], array, atol=1e-6, err_msg=path)


# Without training.


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
  """The weights of an image model that nobody has trained."""
  options = make_config('', ('image',), architecture=json.dumps(DESCRIPTION))
  network = models.make_unet(options.model, 3)
  shapes = trees.flatten(network.abstract_params()['image'])
  random = np.random.RandomState(0)
  folder = tmp_path_factory.mktemp('untrained') / 'published'
  publish(folder, {k: random.normal(size=v.shape) for k, v in shapes.items()})
  return str(folder / 'model.safetensors')


def make_state(config):
  """(objective, state) of a run's last stage."""
  config.model = published.resolve(config.model)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  stage = config.stages[config.train.order[-1]]
  objective = objectives.make_objective(config, stage, mesh)
  state = train_state.initialise(
    config.optim, objective, jax.random.key(0), {}, mesh
  )
  return stage, objective, state


def test_a_state_keeps_a_frozen_image_model_and_nothing_else_of_it(untrained):
  config = make_config('', ('motion',), weights=untrained)
  stage, objective, state = make_state(config)
  flat = trees.flatten(state.params)
  temporal = {path for path in flat if path.startswith('temporal/')}
  assert state.opt_state.keys() == temporal
  assert all(x.keys() == temporal for x in state.ema.values())
  stem = flat['image/stem/kernel']
  assert stem.dtype == jnp.bfloat16
  assert flat['image/head_norm/scale'].dtype == jnp.float32
  weights = safetensors.parse(pathlib.Path(untrained).read_bytes())
  theirs = weights['input_blocks.0.0.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(stem, theirs.astype(jnp.bfloat16))
  # A step holds the same values in other arrays.
  layout = packing.plan(state, train_step.trained_by(stage, objective, flat))
  packed = packing.pack(layout, state)
  assert len(packed.opt_state) == 1 and len(packed.params) == 2
  back = packing.unpack(layout, packed)
  for name in ('params', 'opt_state', 'ema'):
    ours, same = getattr(state, name), getattr(back, name)
    assert jax.tree.structure(ours) == jax.tree.structure(same)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(same)):
      assert x.dtype == y.dtype
      np.testing.assert_array_equal(x, y)
  # What samples are made with is the whole network.
  averaged = train_state.averaged(state, config.optim.ema[0])
  assert trees.flatten(averaged).keys() == flat.keys()


def test_another_image_model_takes_the_place_of_a_models_own(untrained):
  config = make_config('', ('motion',), weights=untrained)
  stage, _, state = make_state(config)
  made = dict(config=config, stage=stage, step=1, frozen={}, label_names=[])
  whole = trained.Model(params=state.params, frame_rate=1.0, **made)
  assert image_models.complete(whole) is whole
  branches = {k: v for k, v in whole.params.items() if k != 'image'}
  alone = whole._replace(params=branches, source='exports/a')
  assert image_models.is_branches(alone) and not image_models.is_branches(whole)
  with pytest.raises(errors.UsageError, match='exports/a holds the branches'):
    image_models.complete(alone)
  for found in (alone, whole._replace(params=branches | {'image': {}})):
    params = image_models.complete(found, untrained).params
    flat, own = trees.flatten(params), trees.flatten(state.params)
    assert flat.keys() == own.keys()
    stem = flat['image/stem/kernel'].astype(jnp.bfloat16)
    np.testing.assert_array_equal(stem, own['image/stem/kernel'])
    assert params['temporal'] is branches['temporal']
  # Files of another network are refused.
  other = config.copy_and_resolve_references()
  other.model.architecture = json.dumps(DESCRIPTION | dict(num_channels=16))
  with pytest.raises(errors.UsageError, match='is of a network with'):
    image_models.complete(alone._replace(config=other), untrained)
  config.model.update(kind='unet', weights='', architecture='')
  with pytest.raises(errors.UsageError, match='no published image model'):
    image_models.complete(whole._replace(config=config), untrained)


def test_memory_of_a_frozen_image_model(untrained):
  """2 bytes a parameter, and not 4 of each parameter, moment and average."""
  sizes = {}
  for order in (('motion',), ('motion', 'all')):
    config = make_config('', order, weights=untrained)
    _, _, state = make_state(config)
    arrays = [state.params['image'], state.opt_state, state.ema]
    sizes[len(order)] = costs.size(arrays)
  config = make_config('', ('motion',), weights=untrained)
  _, _, state = make_state(config)
  flat = trees.flatten(state.params['image'])
  vectors = sum(x.size for x in flat.values() if x.ndim == 1)
  matrices = sum(x.size for x in flat.values()) - vectors
  # One average; counts, of the parameter and in its moments, are int32.
  counts = 2 * 4 * len(flat)
  saved = matrices * (16 - 2) + vectors * (16 - 4) + counts
  assert sizes[2] - sizes[1] == saved


def test_a_plan_needs_no_file():
  config = get_config('inflate', 'smoke')
  made = report.make(
    config, [targets.parse('rtx4090')], compile_seconds=0, data_seconds=0
  )
  numbers = made['stages']['motion']
  network = models.make_unet(published.resolve(config.model), 3)
  flat = trees.flatten(network.abstract_params())
  count = {p: x.size for p, x in flat.items()}
  assert numbers['parameters'] == sum(count.values())
  temporal = [p for p in count if p.startswith('temporal/')]
  assert numbers['trained'] == sum(count[p] for p in temporal)


def test_sizes_of_the_published_autoencoder():
  shapes = autoencoder_kl.abstract_published(4)
  count = {
    k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()
  }
  # With the 1 x 1 convolutions around the latents, 72 and 20.
  assert count == {'encoder': 34_163_664, 'decoder': 49_490_199}


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(weights=''), 'set config.model.weights'),
    (dict(num_classes=5), 'knows 8 labels'),
    (dict(weights_sha256='abc'), 'is not a sha256'),
    (dict(kind='unet'), 'kind=unet is none'),
    (dict(temporal_levels=(0, 1)), 'names level 1'),
    (
      dict(weights='', architecture=json.dumps(TEXT), kind='conditional'),
      'attends to text',
    ),
  ],
)
def test_what_does_not_fit_stops_a_run_at_once(
  changes, words, untrained, data_root, tmp_path
):
  model = dict(weights=untrained) | changes
  config = make_config(data_root, ('motion',), **model)
  with pytest.raises(errors.UsageError, match=words) as error:
    train.train(config, tmp_path)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'config.json').exists()
