"""AutoencoderKL against diffusers, and the names of its files.

tests/golden/make_autoencoder_kl.py has made what it is compared with.
"""

import functools
import importlib.util
import re

from conftest import ROOT
import formula_weights
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from vdm.models import autoencoders
from vdm.models import import_weights
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import pretrained

SCRIPT = ROOT / 'tests/golden/make_autoencoder_kl.py'
GOLDEN = np.load(ROOT / 'tests/golden/autoencoder_kl.npz')
# As in make_autoencoder_kl.py.
NETWORKS = {
  'sd': dict(widths=(16, 32, 32), blocks=2, channels=4, groups=8),
  'flux1': dict(
    widths=(16, 32, 32), blocks=2, channels=16, groups=8, quant=False
  ),
  'no_attention': dict(
    widths=(16, 24), blocks=2, channels=4, groups=4, attention=False
  ),
  'four_levels': dict(widths=(32, 32, 64, 64), blocks=1, channels=4, groups=32),
}
FULL = dict(widths=(128, 256, 512, 512), blocks=2, channels=4, groups=32)


def frame(height=32, width=24):
  """As in make_autoencoder_kl.py."""
  random = np.random.RandomState(0)
  y, x = np.mgrid[:height, :width] / 10
  smooth = np.stack([np.sin(x + y), np.cos(x), np.sin(y - 2 * x)], -1)
  noise = random.uniform(-0.3, 0.3, smooth.shape)
  return (0.7 * smooth + noise).astype(np.float32)


def shapes(*, widths, blocks, channels, groups, quant=True, attention=True):
  """{name: shape} in diffusers, by hand."""
  del groups
  found = {}

  def layer(name, *shape):
    found[f'{name}.weight'] = shape
    found[f'{name}.bias'] = shape[:1]

  def residual(name, cin, cout):
    layer(f'{name}.norm1', cin)
    layer(f'{name}.conv1', cout, cin, 3, 3)
    layer(f'{name}.norm2', cout)
    layer(f'{name}.conv2', cout, cout, 3, 3)
    if cin != cout:
      layer(f'{name}.conv_shortcut', cout, cin, 1, 1)

  for side in ('encoder', 'decoder'):
    order = widths if side == 'encoder' else widths[::-1]
    cin = order[0]
    first = 3 if side == 'encoder' else channels
    last = 2 * channels if side == 'encoder' else 3
    layer(f'{side}.conv_in', cin, first, 3, 3)
    for i, width in enumerate(order):
      kind = 'down' if side == 'encoder' else 'up'
      for j in range(blocks + (side == 'decoder')):
        residual(f'{side}.{kind}_blocks.{i}.resnets.{j}', cin, width)
        cin = width
      if i < len(order) - 1:
        name = f'{side}.{kind}_blocks.{i}.{kind}samplers.0.conv'
        layer(name, width, width, 3, 3)
    middle = widths[-1]
    for j in (0, 1):
      residual(f'{side}.mid_block.resnets.{j}', middle, middle)
    if attention:
      name = f'{side}.mid_block.attentions.0'
      layer(f'{name}.group_norm', middle)
      for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
        layer(f'{name}.{part}', middle, middle)
    layer(f'{side}.conv_norm_out', cin)
    layer(f'{side}.conv_out', last, cin, 3, 3)
  if quant:
    layer('quant_conv', 2 * channels, 2 * channels, 1, 1)
    layer('post_quant_conv', channels, channels, 1, 1)
  return found


@functools.cache
def tensors(name):
  found = shapes(**(FULL if name == 'full' else NETWORKS[name]))
  return {k: formula_weights.draw(k, shape) for k, shape in found.items()}


def parameters(tensors):
  flat = autoencoder_kl.convert(tensors)
  return pretrained.match('a file', flat, autoencoder_kl.abstract_params)


def run(name, x):
  """(mean, logvar, reconstruction of the mean) of clips."""
  groups = (FULL if name == 'full' else NETWORKS[name])['groups']
  encode, decode = autoencoder_kl.make(groups=groups)
  params = parameters(tensors(name))

  @jax.jit
  def through(params, x):
    mean, logvar = encode(params, x)
    return mean, logvar, decode(params, mean)

  return through(params, x)


def relative(ours, theirs):
  error = np.linalg.norm(np.ravel(ours - theirs))
  return error / np.linalg.norm(np.ravel(theirs))


@pytest.mark.parametrize('name', NETWORKS)
def test_as_in_diffusers(name):
  # Another frame of the clip changes nothing.
  x = np.stack([frame(), frame()[::-1]])[None]
  for key, ours in zip(('mean', 'logvar', 'y'), run(name, x)):
    theirs = GOLDEN[f'{name}/{key}']
    assert ours.shape == (1, 2, *theirs.shape)
    assert relative(ours[0, 0], theirs) < 1e-5, key  # Asked: 1e-4.


@pytest.mark.oracle
def test_golden_arrays_and_the_full_network_are_what_diffusers_gives():
  pytest.importorskip('diffusers')
  spec = importlib.util.spec_from_file_location('make', SCRIPT)
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  assert script.NETWORKS == NETWORKS and script.FULL == FULL
  made = script.make()
  for key in GOLDEN:
    if key != 'versions':
      assert relative(GOLDEN[key], made[key]) < 1e-5, key
  x = frame(64, 48)
  theirs = script.run(script.build(**FULL), x)
  ours = dict(zip(theirs, run('full', x[None, None])))
  for key, value in theirs.items():
    error = relative(ours[key][0, 0], value)
    assert error < 1e-4, (key, error)


def test_the_published_network_is_complete():
  """248 tensors; 34,163,592 and 49,490,179 parameters: TAESD's README."""
  full = {
    k: np.broadcast_to(np.float32(0), s) for k, s in shapes(**FULL).items()
  }
  assert len(full) == 248
  params = parameters(full)
  counts = {
    side: sum(map(np.size, jax.tree.leaves(params[side])))
    - sum(map(np.size, params[side]['quant_conv'].values()))
    for side in params
  }
  # There the 1 x 1 convolutions around the latents, 72 and 20, go uncounted.
  assert counts == {'encoder': 34_163_592, 'decoder': 49_490_179}
  assert autoencoder_kl.factor(params) == 8
  assert autoencoder_kl.channels(params) == 4


def old(name):
  """The name in older files of diffusers."""
  for new, before in (
    ('to_q', 'query'),
    ('to_k', 'key'),
    ('to_v', 'value'),
    ('to_out.0', 'proj_attn'),
  ):
    name = name.replace(f'attentions.0.{new}.', f'attentions.0.{before}.')
  return name


def latent_diffusion(name, levels):
  """The name in latent diffusion's own code: ldm/modules/diffusionmodules."""
  words = name.split('.')
  if 'down_blocks' in words or 'up_blocks' in words:
    side, kind, level, part, number = words[:5]
    level = int(level) if kind == 'down_blocks' else levels - 1 - int(level)
    kind = kind.removesuffix('_blocks')
    if part == 'resnets':
      words = [side, kind, str(level), 'block', number, *words[5:]]
    else:
      words = [side, kind, str(level), f'{kind}sample', *words[5:]]
  elif 'mid_block' in words:
    side, _, part, number = words[:4]
    if part == 'resnets':
      words = [side, 'mid', f'block_{int(number) + 1}', *words[4:]]
    else:
      inner = {'group_norm': 'norm', 'to_out': 'proj_out'}
      inner = inner.get(words[4], words[4].removeprefix('to_'))
      words = [side, 'mid', 'attn_1', inner, words[-1]]
  name = '.'.join(words).replace('conv_shortcut', 'nin_shortcut')
  return name.replace('conv_norm_out', 'norm_out')


@pytest.mark.parametrize('network', ['sd', 'four_levels', 'flux1'])
def test_old_names_and_those_of_latent_diffusion_are_the_same(network):
  new = tensors(network)
  levels = len(NETWORKS[network]['widths'])
  expected = autoencoder_kl.convert(new)
  before = {old(k): v for k, v in new.items()}
  assert before.keys() != new.keys()
  original = {}
  for name, array in new.items():
    theirs = latent_diffusion(name, levels)
    if re.search(r'attn_1\.(q|k|v|proj_out)\.weight', theirs):
      array = array[:, :, None, None]  # As 1 x 1 convolutions.
    original[theirs] = array
  # Within the checkpoint of a whole model, with more beside it.
  whole = {f'state_dict.first_stage_model.{k}': v for k, v in original.items()}
  whole['state_dict.model.diffusion_model.out.weight'] = np.zeros(3)
  whole['state_dict.first_stage_model.loss.logvar'] = np.zeros(())
  for other in (before, original, whole):
    found = autoencoder_kl.convert(other)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
      np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_what_is_no_such_network_is_named():
  good = tensors('sd')

  def refused(changed, words):
    with pytest.raises(import_weights.WeightsError, match=words) as error:
      parameters(changed)
    assert '\n' not in str(error.value)

  refused(
    {k: v for k, v in good.items() if 'up_blocks.1.resnets.2' not in k},
    'level_1_block_2/conv1/bias is missing',
  )
  refused(
    good | {'encoder.down.0.attn.0.norm.weight': np.zeros(16, 'f')},
    'not nothing of that name',
  )
  name = 'decoder.mid_block.attentions.0.to_q.weight'
  refused(good | {name: np.zeros((32, 16), 'f')}, r'to_q/kernel is \(16, 32\)')
  refused({'a.weight': np.zeros(3)}, 'has no encoder')
  refused(
    {k: v for k, v in good.items() if 'conv_out' not in k},
    'there is no conv_out',
  )


def make(**values):
  config = dict(kind='autoencoder_kl', factor=4, channels=4)
  config |= dict(scaling_factor=1.0, shift_factor=0.0) | values
  return autoencoders.make_autoencoder(ml_collections.ConfigDict(config))


def test_latents_as_published_models_see_them():
  params = parameters(tensors('four_levels'))
  plain, scaled = make(), make(scaling_factor=0.3611, shift_factor=0.1159)

  @jax.jit
  def run(params, x):
    (mean, logvar), (z, log_scaled) = (
      codec.encode(params, x) for codec in (plain, scaled)
    )
    back = plain.decode(params, mean), scaled.decode(params, z)
    return mean, logvar, z, log_scaled, *back

  mean, logvar, z, log_scaled, y, y_scaled = run(params, frame()[None, None])
  np.testing.assert_allclose(z, (mean - 0.1159) * 0.3611, atol=1e-6)
  # The posterior's deviation is on the same scale.
  ratio = np.exp(0.5 * (log_scaled - logvar))
  np.testing.assert_allclose(ratio, 0.3611, rtol=1e-5)
  np.testing.assert_allclose(y_scaled, y, atol=1e-5)


def test_computes_in_the_dtype_of_its_input():
  params = parameters(tensors('four_levels'))
  x = jnp.zeros((1, 2, 16, 16, 3), jnp.bfloat16)
  codec = make(scaling_factor=0.18215)
  mean, logvar = jax.eval_shape(codec.encode, params, x)
  assert mean.dtype == logvar.dtype == jnp.bfloat16
  assert mean.shape == (1, 2, 2, 2, 4)
  assert jax.eval_shape(codec.decode, params, mean).dtype == jnp.bfloat16
