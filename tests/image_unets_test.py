"""Published image U-Nets against their own code, and the names of their files.

tests/golden/make_conditional_unet.py and make_adm.py have made what they are
compared with.
"""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

from conftest import ROOT
import formula_weights
import image_unet_cases as cases
import jax
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm.common import errors
from vdm.common import trees
from vdm.config import schema
from vdm.models import safetensors
from vdm.models.image_unets import adapters
from vdm.models.image_unets import adm
from vdm.models.image_unets import conditional
from vdm.models.image_unets import description
from vdm.models.image_unets import inflated
from vdm.models.image_unets import layout
from vdm.models.image_unets import names
from vdm.models.image_unets import published
from vdm.models.image_unets import skeleton
from vdm.models.image_unets import timesteps

GOLDEN = {
  'conditional': np.load(ROOT / 'tests/golden/conditional_unet.npz'),
  'adm': np.load(ROOT / 'tests/golden/adm.npz'),
}
CASES = {'conditional': cases.CONDITIONAL, 'adm': cases.ADM}
ALL = [(kind, name) for kind in CASES for name in CASES[kind]]
CHANNELS = {'conditional': 4, 'adm': 3}


def content(kind, name):
  """The description of a case, complete."""
  found = CASES[kind][name]
  return cases.SCHEDULER | found if kind == 'conditional' else found


def options(kind, name, **changes):
  """`config.model` of a case, with all branches."""
  found = schema.default().model
  described = inflated.FAMILIES[kind].parse(content(kind, name))
  found.update(
    kind=kind,
    num_classes=described.sizes.classes,
    architecture=description.to_text(content(kind, name)),
    temporal_levels=(1,),
    temporal_attention_levels=(1,),
    head_size=8,
    embed_width=8,
  )
  if described.takes_text:
    length, width = cases.null_text().shape
    found.text.update(
      encoder='pretrained', padded=True, length=length, features=width
    )
  found.update(changes)
  return published.resolve(found)


@functools.cache
def network(kind, name):
  return models.make_unet(options(kind, name), CHANNELS[kind])


@functools.cache
def abstract(kind, name):
  """{path: abstract array} of the image model."""
  return trees.flatten(network(kind, name).abstract_params()['image'])


def table(kind, name):
  return names.table(inflated.FAMILIES[kind].parse(content(kind, name)))


@functools.cache
def tensors(kind, name):
  """Published weights of a case."""
  shapes = json.loads(str(GOLDEN[kind][f'{name}/shapes']))
  return {k: formula_weights.draw(k, shape) for k, shape in shapes.items()}


@functools.cache
def branches(kind, name):
  """The temporal branches at initialisation: they add zero."""
  own = network(kind, name)
  return jax.jit(lambda key: own.init(key)['temporal'])(jax.random.key(0))


def params(kind, name, published_tensors=None):
  """Parameters of the video model, its temporal branches at zero."""
  described = inflated.parse(kind, description.to_text(content(kind, name)))
  flat = published.to_ours(
    'a file',
    described,
    published_tensors or tensors(kind, name),
    abstract(kind, name),
  )
  text = {'null_text': cases.null_text()} if described.takes_text else {}
  temporal = dict(branches(kind, name))
  return {'image': trees.unflatten(flat), 'temporal': temporal, **text}


@functools.cache
def apply(kind, name):
  return jax.jit(network(kind, name).apply)


def run(kind, name, values, frames=None):
  """The output for both frames of the case, as one clip or clips of one."""
  x = cases.frames(CHANNELS[kind]) if frames is None else frames
  levels = np.array([cases.LEVELS], np.float32)
  tokens, mask = cases.text()
  cond = {'label': np.array([cases.LABEL]), 'text': tokens, 'text_mask': mask}
  return np.asarray(apply(kind, name)(values, x[None], levels, cond))[0]


def relative(ours, theirs):
  error = np.linalg.norm(np.ravel(ours - theirs))
  return error / np.linalg.norm(np.ravel(theirs))


@pytest.mark.parametrize('kind, name', ALL)
def test_every_frame_is_as_published(kind, name):
  """Through the video model, whose temporal branches are at zero."""
  theirs = GOLDEN[kind][f'{name}/y']
  ours = run(kind, name, params(kind, name))
  assert ours.shape == theirs.shape and np.std(theirs) > 0.1
  assert relative(ours, theirs) < 3e-5  # Asked: 1e-4.


@pytest.mark.parametrize('kind, name', ALL)
def test_names_are_a_bijection(kind, name):
  layers, ours = table(kind, name), abstract(kind, name)
  random = np.random.RandomState(0)
  values = {k: random.standard_normal(v.shape) for k, v in ours.items()}
  for scheme in layers[0].names:
    there = names.to_published(layers, scheme, values)
    assert len(there) == len(values)
    back = names.to_ours(layers, scheme, there)
    assert back.keys() == values.keys()
    for path, array in back.items():
      np.testing.assert_array_equal(array, values[path], err_msg=path)
  theirs = {k: v.shape for k, v in tensors(kind, name).items()}
  scheme = 'original' if kind == 'adm' else 'diffusers'
  expected = names.shapes(layers, scheme, ours)
  if inflated.parse(kind, json.dumps(content(kind, name)))[3] is True:
    for end in ('weight', 'bias'):  # With the variance.
      assert theirs[f'out.2.{end}'][0] == 2 * expected[f'out.2.{end}'][0]
      theirs[f'out.2.{end}'] = expected[f'out.2.{end}']
  assert expected == theirs


def test_original_names_are_those_of_latent_diffusion():
  """Written by hand, of the first and last blocks of its U-Net."""
  described = conditional.parse(
    dict(
      block_out_channels=[32, 32, 32],
      down_block_types=['CrossAttnDownBlock2D'] * 2 + ['DownBlock2D'],
      up_block_types=['UpBlock2D'] + ['CrossAttnUpBlock2D'] * 2,
    )
  )
  layers = {x.path: x.names for x in names.table(described)}
  for path, original, diffusers in (
    ('embed_in', 'time_embed.0', 'time_embedding.linear_1'),
    ('stem', 'input_blocks.0.0', 'conv_in'),
    (
      'down_0_block_1/conv_in',
      'input_blocks.2.0.in_layers.2',
      'down_blocks.0.resnets.1.conv1',
    ),
    (
      'down_0_block_1_attention/block_0/text/out',
      'input_blocks.2.1.transformer_blocks.0.attn2.to_out.0',
      'down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0',
    ),
    (
      'down_0_resample/conv',
      'input_blocks.3.0.op',
      'down_blocks.0.downsamplers.0.conv',
    ),
    (
      'middle_block_0_attention/project_in',
      'middle_block.1.proj_in',
      'mid_block.attentions.0.proj_in',
    ),
    (
      'middle_block_1/film',
      'middle_block.2.emb_layers.1',
      'mid_block.resnets.1.time_emb_proj',
    ),
    # Without attention the convolution follows the residual block.
    (
      'up_2_resample/conv',
      'output_blocks.2.1.conv',
      'up_blocks.0.upsamplers.0.conv',
    ),
    (
      'up_1_resample/conv',
      'output_blocks.5.2.conv',
      'up_blocks.1.upsamplers.0.conv',
    ),
    (
      'up_0_block_2/skip',
      'output_blocks.8.0.skip_connection',
      'up_blocks.2.resnets.2.conv_shortcut',
    ),
    ('head_norm', 'out.0', 'conv_norm_out'),
  ):
    assert layers[path] == {'original': original, 'diffusers': diffusers}


def test_files_with_original_names_are_the_same_model():
  """Within the checkpoint of a whole model, with others beside it."""
  kind, name = 'conditional', 'sd1'
  layers = table(kind, name)
  flat = names.to_ours(layers, 'diffusers', tensors(kind, name))
  whole = {
    f'model.diffusion_model.{k}': v
    for k, v in names.to_published(layers, 'original', flat).items()
  }
  whole['first_stage_model.decoder.conv_in.weight'] = np.zeros(3, 'f')
  found = params(kind, name, whole)['image']
  for path, array in trees.flatten(found).items():
    np.testing.assert_array_equal(array, flat[path], err_msg=path)


@pytest.mark.parametrize(
  'kind, content, parameters',
  [
    (
      'adm',  # Flags of the network of 64x64: guided-diffusion's README.
      dict(
        attention_resolutions='32,16,8',
        class_cond=True,
        diffusion_steps=1000,
        dropout=0.1,
        image_size=64,
        learn_sigma=True,
        noise_schedule='cosine',
        num_channels=192,
        num_head_channels=64,
        num_res_blocks=3,
        resblock_updown=True,
        use_new_attention_order=True,
        use_fp16=True,
        use_scale_shift_norm=True,
      ),
      # Without the three channels of the variance, 5,187 of 295,904,454.
      295_904_454 - 3 * (192 * 9 + 1),
    ),
    # SD 1.x, as diffusers counts it.
    ('conditional', dict(cross_attention_dim=768), 859_520_964),
    (
      'conditional',  # BK-SDM-Tiny.
      dict(
        cross_attention_dim=768,
        block_out_channels=[320, 640, 1280],
        down_block_types=['CrossAttnDownBlock2D'] * 3,
        mid_block_type=None,
        up_block_types=['CrossAttnUpBlock2D'] * 3,
        layers_per_block=1,
      ),
      323_384_964,
    ),
  ],
)
def test_published_networks_have_their_number_of_parameters(
  kind, content, parameters
):
  described = inflated.FAMILIES[kind].parse(content)
  shapes = models.functional(skeleton.ImageUNet, described).abstract_params()
  assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters


# Descriptions and files that do not fit.


@pytest.mark.parametrize(
  'kind, changes, key',
  [
    ('conditional', dict(addition_embed_type='text_time'), None),
    ('conditional', dict(mid_block_type='UNetMidBlock2DSimpleCrossAttn'), None),
    ('conditional', dict(down_block_types=['AttnDownBlock2D'] * 4), None),
    ('conditional', dict(layers_per_block=[2, 2]), None),
    ('conditional', dict(attention_head_dim=[7, 7, 7, 7]), None),
    ('conditional', dict(only_cross_attention=[True] * 4), None),
    ('conditional', dict(in_channels=9), None),
    ('conditional', dict(block_out_channels='320,640'), None),
    ('conditional', dict(mid_block_type=['UNetMidBlock2D']), None),
    ('conditional', dict(num_class_embeds='5'), None),
    ('conditional', dict(norm_eps=[1e-5]), None),
    ('conditional', dict(act_fn='gelu'), None),
    ('conditional', dict(rescale_betas_zero_snr=True), None),
    ('conditional', dict(beta_schedule='sigmoid'), 'noise_schedule'),
    ('conditional', dict(prediction_type='flow'), None),
    ('conditional', dict(new_key_of_the_library=3), None),
    ('adm', dict(num_heads_upsample=2), None),
    ('adm', dict(image_size=48), None),
    ('adm', dict(num_channels=100), None),
    ('adm', dict(attention_resolutions='a'), None),
    ('adm', dict(resblock_updown='True'), None),
    ('adm', dict(diffusion_steps=4000, rescale_timesteps=True), 'rescale_time'),
    # Tables that would fill the memory.
    ('adm', dict(diffusion_steps=10**5 + 1), None),
    ('conditional', dict(num_train_timesteps=10**12), 'diffusion_steps'),
  ],
)
def test_what_cannot_be_done_is_refused_by_its_key(kind, changes, key):
  with pytest.raises(description.DescriptionError) as error:
    inflated.FAMILIES[kind].parse(changes)
  assert str(error.value).startswith(key or f'{next(iter(changes))}=')
  assert '\n' not in str(error.value)


def test_keys_that_libraries_write_are_understood():
  """As in the config.json of Stable Diffusion 1.5, and of later diffusers."""
  old = json.loads(
    '{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0",'
    '"act_fn": "silu", "attention_head_dim": 8, "block_out_channels":'
    '[320, 640, 1280, 1280], "center_input_sample": false,'
    '"cross_attention_dim": 768, "down_block_types": ["CrossAttnDownBlock2D",'
    '"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],'
    '"downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,'
    '"in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,'
    '"norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,'
    '"sample_size": 64, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D",'
    '"CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]}'
  )
  expected = conditional.parse(dict(cross_attention_dim=768))
  assert conditional.parse(old) == expected
  assert conditional.parse(old | conditional.FIXED) == expected


def refused(call, words):
  with pytest.raises(errors.UsageError, match=words) as error:
    call()
  assert '\n' not in str(error.value)


def test_the_first_tensors_that_differ_are_named():
  good = tensors('adm', 'legacy')

  def load(changed):
    return lambda: params('adm', 'legacy', changed)

  refused(
    load({k: v for k, v in good.items() if not k.startswith('middle_block.2')}),
    'middle_block.2.emb_layers.1.bias is missing in the file and .64,. in the '
    'description; .*; and 7 more',
  )
  refused(
    load(good | {'input_blocks.1.0.in_layers.0.weight': np.zeros(8, 'f')}),
    r'input_blocks.1.0.in_layers.0.weight is .8,. in the file and .32,. in',
  )
  refused(load(good | {'label_emb.weight': np.zeros((9, 9))}), 'and nothing in')
  refused(load({'a': np.zeros(3)}), 'has none of the names')


def write(folder, kind, name, **changes):
  """A file of weights with its description, as `config.model`."""
  folder.mkdir()
  path = folder / 'weights.safetensors'
  path.write_bytes(safetensors.to_bytes(tensors(kind, name), {}))
  text = json.dumps({'_class_name': 'x'} | CASES[kind][name] | changes)
  (folder / 'config.json').write_text(text)
  found = schema.default().model
  found.update(kind=kind, weights=str(path))
  return found


def test_a_description_is_that_beside_the_weights(tmp_path):
  found = write(tmp_path / 'adm', 'adm', 'published')
  resolved = published.resolve(found)
  assert resolved.widths == (32, 64) and resolved.blocks == (1, 1)
  # What is loaded is what was written, and is checked by its hash.
  shapes = trees.unflatten(abstract('adm', 'published'))
  flat = trees.flatten(published.load(resolved, shapes))
  expected = trees.flatten(params('adm', 'published')['image'])
  for path, array in flat.items():
    np.testing.assert_array_equal(array, expected[path], err_msg=path)
  resolved.weights_sha256 = '0' * 64
  refused(lambda: published.load(resolved, shapes), 'has sha256')
  # A run that has begun needs no file of it again.
  os.remove(tmp_path / 'adm/config.json')
  refused(lambda: published.resolve(found), 'There is no config.json')
  again = published.resolve(found, known=resolved.architecture)
  assert again.architecture == resolved.architecture
  # Another one than that beside the weights is named.
  other = write(tmp_path / 'other', 'adm', 'published', num_head_channels=32)
  other.architecture = resolved.architecture
  refused(lambda: published.resolve(other), r'heads=\(4, 32\)')


def test_the_scheduler_says_what_outputs_mean(tmp_path):
  model = write(tmp_path / 'unet', 'conditional', 'sd1')
  refused(lambda: published.resolve(model), 'prediction_type')
  (tmp_path / 'scheduler').mkdir()
  path = tmp_path / 'scheduler/scheduler_config.json'
  said = cases.SCHEDULER | {'prediction_type': 'v_prediction', 'clip': False}
  path.write_text(json.dumps(said))
  resolved = published.resolve(model)
  described = inflated.parse('conditional', resolved.architecture)
  assert described.prediction == 'v' and described.noise.steps == 1000


def run_config(kind, name, **changes):
  config = schema.default()
  config.model = options(kind, name, **changes)
  config.autoencoder.update(kind='identity', scale='none')
  if kind == 'conditional':
    config.autoencoder.update(
      kind='autoencoder_kl', channels=4, scaling_factor=0.18215, factor=8
    )
  config.model.weights = 'a file'
  described = inflated.parse(kind, config.model.architecture)
  config.diffusion.prediction = described.prediction
  return config


@pytest.mark.parametrize(
  'kind, name, key, value, words',
  [
    ('adm', 'published', 'diffusion.prediction', 'v', 'predicts eps'),
    ('adm', 'published', 'model.num_classes', 8, 'knows 1000 labels'),
    ('adm', 'published', 'autoencoder.scale', 'shared', 'scale=none'),
    ('adm', 'published', 'autoencoder.kind', 'kl', 'on 3 channels'),
    ('conditional', 'sd2', 'diffusion.prediction', 'eps', 'predicts v'),
    ('conditional', 'sd1', 'autoencoder.channels', 16, 'on 4 channels'),
    ('conditional', 'sd1', 'autoencoder.factor', 4, 'not to 4, 0.18215'),
    ('conditional', 'sd1', 'autoencoder.scaling_factor', 1.0, 'scaled by 0.18'),
    ('conditional', 'sd1', 'model.text.encoder', 'none', 'attends to text'),
    ('conditional', 'sd1', 'model.text.features', 8, 'text of 24 channels'),
    ('conditional', 'sd1', 'model.text.padded', False, 'with their padding'),
    ('adm', 'published', 'model.text.encoder', 'pretrained', 'to no text'),
  ],
)
def test_what_does_not_fit_the_image_model_is_named(
  kind, name, key, value, words
):
  config = run_config(kind, name)
  assert not list(published.problems(config))
  config.update_from_flattened_dict({key: value})
  refused(lambda: published.check(config), words)


def test_a_network_that_is_trained_from_nothing_knows_no_latents_yet():
  config = run_config('adm', 'published')
  config.autoencoder.scale = 'shared'
  assert list(published.problems(config))
  config.model.weights = ''
  assert not list(published.problems(config))


# Timesteps.


@pytest.mark.parametrize('kind, name', ALL)
def test_timesteps_are_those_of_the_levels(kind, name):
  noise = inflated.FAMILIES[kind].parse(content(kind, name)).noise
  rising = -timesteps.table(noise)
  assert len(rising) == 1000 and (np.diff(rising) > 0).all()
  at = np.array([0.0, 10.0, 500.5, 998.5, 999.0])
  levels = -np.interp(at, np.arange(1000), rising)
  found = timesteps.timestep(noise, np.array([[50.0, *levels, -60.0]], 'f'))
  np.testing.assert_allclose(found[0], [0.0, *at, 999.0], rtol=1e-4, atol=1e-2)


def test_tables_are_those_of_ddpm_and_sd():
  ddpm = timesteps.table(timesteps.make_noise('ddpm', 1000))
  alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
  np.testing.assert_allclose(ddpm, np.log(alphas / (1 - alphas)), rtol=1e-9)
  sd = timesteps.table(
    timesteps.make_noise('scaled_linear', 1000, 0.00085, 0.012)
  )
  # The published sigmas of SD 1.x: 0.0292 to 14.6146.
  sigmas = np.exp(-sd / 2)
  np.testing.assert_allclose(sigmas[[0, -1]], [0.0292, 14.6146], rtol=2e-3)


# What the video model adds.


def randomised(values, seed=0):
  """Temporal parameters that are not zero."""
  random = np.random.RandomState(seed)
  temporal = {
    k: np.asarray(v) + 0.1 * random.standard_normal(v.shape).astype('f')
    for k, v in trees.flatten(values['temporal']).items()
  }
  return {**values, 'temporal': trees.unflatten(temporal)}


@pytest.mark.parametrize(
  'kind, name', [('adm', 'published'), ('conditional', 'sd2')]
)
def test_temporal_parameters_change_clips_and_no_single_frame(kind, name):
  before = params(kind, name)
  after = randomised(before)
  x = cases.frames(CHANNELS[kind])
  assert relative(run(kind, name, after), run(kind, name, before)) > 0.01
  tokens, mask = cases.text()
  cond = {'label': np.array([cases.LABEL]), 'text': tokens, 'text_mask': mask}
  levels = np.array([[cases.LEVELS[0]]], np.float32)
  single = [
    np.asarray(apply(kind, name)(values, x[None, :1], levels, cond))
    for values in (before, after)
  ]
  np.testing.assert_array_equal(*single)
  # It is the image model alone, to the bit.
  described = inflated.FAMILIES[kind].parse(content(kind, name))
  alone = models.functional(skeleton.ImageUNet, described)
  context = inflated.transformer.Text(tokens, mask)
  t = timesteps.timestep(described.noise, levels)
  y = jax.jit(alone.apply)(before['image'], x[None, :1], t, cond, context)
  np.testing.assert_array_equal(y, single[0])


def test_computes_in_the_dtype_of_its_input_and_again_if_asked():
  kind, name = 'adm', 'published'
  z = jax.ShapeDtypeStruct((2, 3, 8, 8, 3), 'bfloat16')
  key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
  cond = {'label': jax.ShapeDtypeStruct((2,), 'int32')}
  levels = jax.ShapeDtypeStruct((2, 3), 'float32')
  counts = {}
  for remat in ('none', 'block', 'dots'):
    own = models.make_unet(options(kind, name, remat=remat, dropout=0.1), 3)
    arguments = (own.abstract_params(), z, levels, cond, key)
    assert jax.eval_shape(own.apply, *arguments).dtype == 'bfloat16'
    text = str(jax.make_jaxpr(own.apply)(*arguments))
    counts[remat] = text.count('policy=')
    assert 'random_bits' in text or 'random_fold_in' in text
  sizes = adm.parse(content(kind, name)).sizes
  places = len(layout.places(sizes))
  assert counts == {'none': 0, 'block': places, 'dots': places}


def test_every_block_has_its_branches():
  model = options('conditional', 'small', temporal_levels=(0, 1))
  values = models.make_unet(model, 4).abstract_params()['temporal']
  sizes = conditional.parse(content('conditional', 'small')).sizes
  expected = {'embed_in', 'embed_out'}
  # Without a middle, attention over (t h w) is at the end of the way down.
  expected.add('down_1_block_1_joint')
  for place in layout.places(sizes):
    if place.is_block:
      expected.add(f'{place.name}_conv_0')
      if place.level == 1:
        expected.add(f'{place.name}_attention_0')
  assert values.keys() == expected


def test_rate_and_motion_enter_through_the_branches_alone():
  model = options('adm', 'mixed', scalars=('frame_rate', 'motion'))
  own = models.make_unet(model, 3)
  values = own.abstract_params()
  assert {'embed_frame_rate', 'embed_motion'} <= values['temporal'].keys()
  assert not any('rate' in path for path in trees.flatten(values['image']))
  used = {}
  for frames in (1, 2):
    arguments = (
      jax.ShapeDtypeStruct((1, frames, 4, 4, 3), 'float32'),
      jax.ShapeDtypeStruct((1, frames), 'float32'),
    )
    rate = jax.ShapeDtypeStruct((1,), 'float32')

    def predict(params, z, levels, rate):
      label = np.zeros(1, np.int32)
      return own.apply(params, z, levels, {'label': label, 'frame_rate': rate})

    made = jax.make_jaxpr(predict)(values, *arguments, rate).jaxpr
    read = {id(x) for equation in made.eqns for x in equation.invars}
    used[frames] = id(made.invars[-1]) in read
  assert used == {1: False, 2: True}


def test_a_token_that_the_mask_excludes_does_not_exist():
  make = functools.partial(
    inflated.transformer.Attention,
    8,
    2,
    text_width=6,
    implementation='plain',
  )
  module, _ = tiny_runs.random_module(lambda rngs: make(rngs=rngs))
  random = np.random.RandomState(0)
  x, tokens = (random.normal(size=(2, 3, n)).astype('f') for n in (8, 6))
  mask = np.array([[True, True, True], [True, False, False]])
  tokens[1, 1:] = 1e15
  found = module(x, inflated.transformer.Text(tokens, mask))
  short = inflated.transformer.Text(tokens[1:, :1], mask[1:, :1])
  np.testing.assert_allclose(found[1:], module(x[1:], short), rtol=1e-5)


def test_the_null_label_is_the_mean_of_all():
  kind, name = 'conditional', 'sd2'
  values = params(kind, name)
  described = conditional.parse(content(kind, name))
  alone = models.functional(skeleton.ImageUNet, described)
  module = jax.jit(
    lambda image, label: alone.apply(
      image,
      cases.frames(4)[None, :1],
      np.zeros((1, 1), 'f'),
      {'label': label},
      inflated.transformer.Text(*cases.text()),
    )
  )
  mean = dict(values['image'])
  table = mean['embed_label']
  mean['embed_label'] = np.broadcast_to(table.mean(0), table.shape)
  np.testing.assert_allclose(
    module(values['image'], np.array([-1])),
    module(mean, np.array([3])),
    atol=1e-5,
  )


@pytest.mark.parametrize(
  'kind, name, matrices',
  # Of ADM qkv and out, of text twice q, k, v and out in each block.
  [('adm', 'published', 2 * 4), ('conditional', 'sd2', 8 * 4)],
)
def test_adapters_change_the_matrices_of_attention(kind, name, matrices):
  described = inflated.parse(kind, description.to_text(content(kind, name)))
  before = published.to_ours(
    'a file', described, tensors(kind, name), abstract(kind, name)
  )
  image = trees.unflatten(before)
  shapes = jax.eval_shape(
    lambda key: adapters.init(key, image, 3), jax.random.key(0)
  )
  random = np.random.RandomState(0)
  flat = {
    k: random.normal(size=v.shape).astype('f')
    for k, v in trees.flatten(shapes).items()
  }
  assert len(flat) == 2 * matrices
  zero = {k: v * (not k.endswith('/up')) for k, v in flat.items()}
  values = {'image': image, 'temporal': {}, 'adapters': trees.unflatten(zero)}
  unchanged = adapters.merge(values, 6.0)
  assert unchanged.keys() == {'image', 'temporal'}
  for path, array in trees.flatten(unchanged['image']).items():
    np.testing.assert_array_equal(array, before[path], err_msg=path)
  values['adapters'] = trees.unflatten(flat)
  after, changed = adapters.merge(values, 6.0), set()
  for path, array in trees.flatten(after['image']).items():
    if not np.array_equal(array, before[path]):
      changed.add(path)
      change = 2.0 * flat[f'{path}/down'] @ flat[f'{path}/up']
      np.testing.assert_allclose(array, before[path] + change, atol=1e-5)
  assert len(changed) == matrices
  assert all(re.search('attention/.*kernel', path) for path in changed)


def lowered():
  """Digests of two programs: a gradient through adapters, and a train step."""
  rows, spec = tiny_runs.batch(1), jax.ShapeDtypeStruct
  config = tiny_runs.make_config()
  run = tiny_runs.Run(config)
  arguments = run.arguments(run.begin(), tiny_runs.batch(), 0)
  config.model.update(
    kind='conditional',
    architecture=description.to_text(content('conditional', 'sd2')),
    adapter_rank=2,
  )
  network = models.make_unet(config.model, 4)

  def loss(params, z):
    levels = np.zeros(z.shape[:2], 'f')
    return network.apply(params, z, levels, {'label': rows['label']}).sum()

  adapted = jax.jit(jax.grad(loss)).lower(
    network.abstract_params(), spec((1, 2, 4, 4, 4), 'float32')
  )
  for program in (adapted, run.step.lower(*arguments)):
    yield hashlib.sha256(program.as_text().encode()).hexdigest()


def test_programs_are_the_same_in_every_process():
  """Whatever Python adds to hashes: it orders sets of strings by them."""
  code = 'import image_unets_test as x; print(*x.lowered())'
  environment = dict(os.environ)
  environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
  found = {
    subprocess.run(
      [sys.executable, '-c', code],
      env=environment | {'PYTHONHASHSEED': seed},
      stdout=subprocess.PIPE,
      check=True,
    ).stdout
    for seed in '12'
  }
  (digests,) = found
  assert len(digests.split()) == 2


def test_adapters_start_at_zero():
  kernels = {'block_attention': {'q': {'kernel': np.ones((4, 6), 'f')}}}
  made = adapters.init(jax.random.key(0), kernels, 2)
  made = made['block_attention']['q']['kernel']
  np.testing.assert_array_equal(made['up'], np.zeros((2, 6)))
  assert made['down'].shape == (4, 2) and np.all(made['down'] != 0)


# Live, against the libraries.


def script(name):
  path = ROOT / f'tests/golden/{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.oracle
def test_golden_arrays_of_the_conditional_network_are_what_diffusers_gives():
  pytest.importorskip('diffusers')
  made = script('make_conditional_unet').make()
  for key in GOLDEN['conditional']:
    if key.endswith(('/y', '/y_null')):
      assert relative(GOLDEN['conditional'][key], made[key]) < 1e-5, key
    elif key != 'versions':
      assert str(GOLDEN['conditional'][key]) == str(made[key])


@pytest.mark.oracle
def test_golden_arrays_of_adm_are_what_guided_diffusion_gives():
  pytest.importorskip('torch')
  checkout = os.environ.get('GUIDED_DIFFUSION', '')
  if not checkout:
    pytest.skip('set GUIDED_DIFFUSION to a checkout of openai/guided-diffusion')
  made = script('make_adm').make(pathlib.Path(checkout))
  for key in GOLDEN['adm']:
    if key.endswith('/y'):
      assert relative(GOLDEN['adm'][key], made[key]) < 1e-5, key
    elif key != 'versions':
      assert str(GOLDEN['adm'][key]) == str(made[key])
