"""The tiny autoencoders against diffusers and against PyTorch, and their names.

tests/golden/make_tiny.py has made what they are compared with.
"""

import functools
import importlib.util
import json

from conftest import ROOT
from conftest import SHARED
import formula_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_videos

from vdm.common import trees
from vdm.config import schema
from vdm.models import import_weights
from vdm.models.autoencoders import pretrained
from vdm.models.autoencoders import tiny

GOLDEN = np.load(ROOT / 'tests/golden/tiny.npz')
CHANNELS = {'taesd': 4, 'taef1': 16}
# Of make_tiny.py.
FRAMES = (
  ('driving/drive_solidWhiteRight.mp4', 10, 64),
  ('natural/person_asl_walk.mkv', 20, 64),
  ('ucf101/UCF-101/Punch/v_Punch_g03_c01.avi', 5, 64),
  ('driving/drive_test_video.mp4', 0, 128),
)
STRIDE = 37


def frame(name):
  """As in make_tiny.py."""
  random = np.random.RandomState(len(name))
  y, x = np.mgrid[:24, :40] / 10
  smooth = np.stack([np.sin(x + y), np.cos(x), np.sin(y - 2 * x)], -1)
  noise = random.uniform(-0.3, 0.3, smooth.shape)
  return (0.7 * smooth + noise).astype(np.float32)


def shapes(channels):
  """{name in diffusers: shape}, by hand from its EncoderTiny, DecoderTiny."""
  kernel, found = (64, 64, 3, 3), {}

  def block(name):
    for i in (0, 2, 4):
      found[f'{name}.conv.{i}.weight'] = kernel
      found[f'{name}.conv.{i}.bias'] = (64,)

  for side, ends, halvings, doublings in (
    ('encoder', (0, 14), (2, 6, 10), ()),
    ('decoder', (0, 18), (), (6, 11, 16)),
  ):
    cin, cout = (3, channels) if side == 'encoder' else (channels, 3)
    found[f'{side}.layers.{ends[0]}.weight'] = (64, cin, 3, 3)
    found[f'{side}.layers.{ends[0]}.bias'] = (64,)
    found[f'{side}.layers.{ends[1]}.weight'] = (cout, 64, 3, 3)
    found[f'{side}.layers.{ends[1]}.bias'] = (cout,)
    for i in halvings + doublings:
      found[f'{side}.layers.{i}.weight'] = kernel
    bare = {*ends, *halvings, *doublings}
    if side == 'decoder':
      bare |= {1, *(i - 1 for i in doublings)}  # A ReLU, and the doublings.
    for i in range(ends[1]):
      if i not in bare:
        block(f'{side}.layers.{i}')
  return found


@functools.cache
def tensors(name):
  return {
    key: formula_weights.draw(key, shape)
    for key, shape in shapes(CHANNELS[name]).items()
  }


def parameters(tensors):
  return pretrained.match('a file', tiny.convert(tensors), tiny.abstract_params)


encode, decode = jax.jit(tiny.encode), jax.jit(tiny.decode)


def relative(ours, theirs):
  error = np.linalg.norm(np.ravel(ours - theirs))
  return error / np.linalg.norm(np.ravel(theirs))


@pytest.mark.parametrize('name', CHANNELS)
def test_as_in_diffusers(name):
  params = parameters(tensors(name))
  # Other frames of the clip, and other clips, change nothing.
  x = np.random.default_rng(0).uniform(-1, 1, (2, 2, 24, 40, 3)).astype('f')
  x[0, 1] = frame(name)
  mean, logvar = encode(params, x)
  z, y = GOLDEN[f'{name}/z'], GOLDEN[f'{name}/y']
  assert mean.shape == logvar.shape == (2, 2, 3, 5, CHANNELS[name])
  assert relative(mean[0, 1], z) < 1e-5
  assert relative(decode(params, mean)[0, 1], y) < 1e-5
  assert np.exp(logvar).max() < 1e-12


def load_taef2(shared):
  sides = {}
  for side in ('encoder', 'decoder'):
    path = shared / f'weights/taef2_{side}.pth'
    sides |= tiny.convert(import_weights.read(path).tensors)
  return pretrained.match('taef2', sides, tiny.abstract_params)


@pytest.mark.parametrize('number', range(len(FRAMES)))
def test_taef2_as_in_pytorch_on_real_frames(number, shared):
  params = load_taef2(shared)
  name, index, size = FRAMES[number]
  x = tiny_videos.real_frame(shared / 'clips' / name, index, size)
  x = (x.astype(np.float32) / 127.5 - 1)[None, None]
  z = encode(params, x)[0]
  y = np.asarray(decode(params, z))
  golden = {k: GOLDEN[f'taef2/{number}/{k}'] for k in ('z', 'y', 'psnr')}
  np.testing.assert_allclose(np.ravel(z)[::STRIDE], golden['z'], atol=1e-4)
  np.testing.assert_allclose(np.ravel(y)[::STRIDE], golden['y'], atol=1e-4)
  mse = np.mean((np.clip(y, -1, 1) - x) ** 2)
  assert abs(10 * np.log10(4 / mse) - golden['psnr'][0]) < 0.01


@pytest.mark.oracle
def test_golden_arrays_and_ours_are_what_pytorch_gives():
  pytest.importorskip('torch')
  pytest.importorskip('diffusers')
  path = ROOT / 'tests/golden/make_tiny.py'
  spec = importlib.util.spec_from_file_location('make_tiny', path)
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  made = script.make(SHARED)
  for key in GOLDEN:
    if key != 'versions':
      np.testing.assert_allclose(made[key], GOLDEN[key], rtol=0, atol=1e-4)
  # And all values of a real frame, not only a share of them.
  whole = script.make_taef2(SHARED, 0)
  params = load_taef2(SHARED)
  name, index, size = FRAMES[0]
  x = tiny_videos.real_frame(SHARED / 'clips' / name, index, size)
  z = encode(params, (x.astype(np.float32) / 127.5 - 1)[None, None])[0]
  np.testing.assert_allclose(z[0, 0], whole['z'], atol=1e-4)
  np.testing.assert_allclose(decode(params, z)[0, 0], whole['y'], atol=1e-4)


def authors(name):
  """A name of diffusers as the authors' files have it: (side, name)."""
  side, _, index, part = name.split('.', 3)
  return side, f'{int(index) + (side == "decoder")}.{part}'


def test_names_of_the_authors_and_of_diffusers_are_the_same_network():
  theirs = tiny.convert(tensors('taesd'))
  one, sides = {}, {'encoder': {}, 'decoder': {}}
  for name, array in tensors('taesd').items():
    side, name = authors(name)
    sides[side][name] = array
    one[f'taesd_{side}.{name}'] = array
  two = tiny.convert(sides['encoder']) | tiny.convert(sides['decoder'])
  for ours in (two, tiny.convert(one)):
    assert ours.keys() == theirs.keys()
    assert all(
      ours[k] is ours[k] and (ours[k] == theirs[k]).all() for k in ours
    )


def with_more_blocks(tensors, zeros):
  """A network with blocks of zeros, which change nothing after a block.

  Args:
    tensors: of a network of diffusers' names.
    zeros: {side: place of the block that a block of zeros follows}.
  """
  found = {}
  for name, array in tensors.items():
    side, _, index, part = name.split('.', 3)
    place = int(index)
    found[f'{side}.layers.{place + (place > zeros[side])}.{part}'] = array
    if place == zeros[side]:
      found[f'{side}.layers.{place + 1}.{part}'] = np.zeros_like(array)
  return found


@pytest.mark.parametrize(
  'zeros, blocks',
  [
    # Places in diffusers' order, in which the decoder's stem is 0.
    (dict(encoder=1, decoder=4), ((2, 3, 3, 3), (4, 3, 3, 1))),
    (dict(encoder=5, decoder=9), ((1, 4, 3, 3), (3, 4, 3, 1))),
    (dict(encoder=13, decoder=17), ((1, 3, 3, 4), (3, 3, 3, 2))),
  ],
)
def test_the_number_of_blocks_is_that_of_the_weights(zeros, blocks):
  params = parameters(with_more_blocks(tensors('taesd'), zeros))
  sides = [tiny.sizes(params, side).blocks for side in ('encoder', 'decoder')]
  assert tuple(sides) == blocks
  assert tiny.factor(params) == 8 and tiny.channels(params) == 4
  mean, _ = jax.jit(tiny.encode)(params, frame('taesd')[None, None])
  assert relative(mean[0, 0], GOLDEN['taesd/z']) < 1e-5
  y = jax.jit(tiny.decode)(params, mean)
  assert relative(y[0, 0], GOLDEN['taesd/y']) < 1e-5


def smaller():
  """A network of three levels with blocks (1, 2, 1) and (1, 1, 2)."""
  kernel = np.zeros((8, 8, 3, 3), np.float32)
  kinds = {'b': [f'conv.{i}' for i in (0, 2, 4)], 'c': ['']}
  found = {}
  for side, layout in (('encoder', 'cbcbbcbc'), ('decoder', 'c.b.cb.cbbc')):
    for place, kind in enumerate(layout):
      for part in kinds.get(kind, ()):
        name = f'{side}.layers.{place}.{part}'.removesuffix('.')
        ends = place in (0, len(layout) - 1)
        found[f'{name}.weight'] = kernel
        if kind == 'b' or ends:
          found[f'{name}.bias'] = kernel[:, 0, 0, 0]
  found['encoder.layers.0.weight'] = kernel[:, :3]
  found['encoder.layers.7.weight'] = kernel[:5]
  found['encoder.layers.7.bias'] = kernel[:5, 0, 0, 0]
  found['decoder.layers.0.weight'] = kernel[:, :5]
  found['decoder.layers.10.weight'] = kernel[:3]
  found['decoder.layers.10.bias'] = kernel[:3, 0, 0, 0]
  return found


def test_so_are_levels_and_widths_and_config_json_must_agree(tmp_path):
  params = parameters(smaller())
  assert tiny.sizes(params, 'encoder') == (5, 8, (1, 2, 1), False)
  assert tiny.sizes(params, 'decoder') == (5, 8, (1, 1, 2), False)
  assert tiny.factor(params) == 4
  mean, _ = tiny.encode(params, np.zeros((1, 1, 8, 12, 3), np.float32))
  assert mean.shape == (1, 1, 2, 3, 5)
  assert tiny.decode(params, mean).shape == (1, 1, 8, 12, 3)

  np.savez(tmp_path / 'weights.npz', **smaller())
  config = schema.default().autoencoder
  config.update(kind='tiny', factor=4, channels=5)
  config.weights = str(tmp_path / 'weights.npz')
  pretrained.load(config)
  content = tiny.describe(params)
  assert content['num_encoder_blocks'] == [1, 2, 1]
  for changes, words in (
    ({}, ''),
    ({'num_encoder_blocks': [1, 3, 3, 3]}, r'num_encoder_blocks=\[1, 3, 3, 3'),
    ({'act_fn': 'silu'}, 'act_fn=silu, and .* with relu'),
    ({'upsampling_scaling_factor': 4}, 'upsampling_scaling_factor=4'),
    ({'_class_name': 'AutoencoderKL'}, '_class_name=AutoencoderKL'),
  ):
    (tmp_path / 'config.json').write_text(json.dumps(content | changes))
    if not words:
      pretrained.load(config)
      continue
    with pytest.raises(import_weights.WeightsError, match=words):
      pretrained.load(config)


def test_a_missing_layer_is_no_smaller_network():
  good = tensors('taesd')
  for layer in ('encoder.layers.3', 'encoder.layers.6', 'decoder.layers.3'):
    left = {k: v for k, v in good.items() if not k.startswith(f'{layer}.')}
    with pytest.raises(import_weights.WeightsError):
      parameters(left)


def test_what_is_no_such_network_is_named():
  good = tensors('taesd')

  def refused(changed, words):
    with pytest.raises(import_weights.WeightsError, match=words) as error:
      parameters(changed)
    assert '\n' not in str(error.value)

  refused(
    good | {'head.weight': good['encoder.layers.0.weight']}, 'head.weight'
  )
  refused(good | {'encoder.layers.99.weight': np.zeros(3)}, 'layers.99.weight')
  refused(good | {'decoder.layers.1.weight': np.zeros(3)}, 'layers.1.weight')
  refused(
    good | {'encoder.layers.3.skip.weight': np.zeros(3)}, '3.skip.weight is no'
  )
  missing = {k: v for k, v in good.items() if k != 'decoder.layers.6.weight'}
  refused(missing, 'decoder/up_0/kernel is missing, not .3, 3, 64, 64')
  bias = {'encoder.layers.2.bias': np.zeros(64, np.float32)}
  refused(good | bias, 'down_1/bias is .64,., not nothing of that name')
  narrow = {'encoder.layers.2.weight': np.zeros((64, 32, 3, 3), np.float32)}
  refused(good | narrow, r'down_1/kernel is \(3, 3, 32, 64\), not \(3, 3, 64')
  side = {k: v for k, v in good.items() if k.startswith('decoder')}
  refused(side, 'has no encoder: give the files of both sides')


def test_computes_in_the_dtype_of_its_input():
  params = parameters(tensors('taef1'))
  x = jnp.zeros((1, 2, 8, 8, 3), jnp.bfloat16)
  mean, logvar = jax.eval_shape(tiny.encode, params, x)
  assert mean.dtype == logvar.dtype == jnp.bfloat16
  assert jax.eval_shape(tiny.decode, params, mean).dtype == jnp.bfloat16


def test_parameter_counts_are_the_published_ones():
  """1,222,532 and 1,222,531: the comparison table of TAESD's README."""
  params = parameters(tensors('taesd'))
  sizes = {k: sum(map(np.size, jax.tree.leaves(v))) for k, v in params.items()}
  assert sizes == {'encoder': 1_222_532, 'decoder': 1_222_531}
  assert trees.unflatten(tiny.convert(tensors('taesd'))).keys() == sizes.keys()
