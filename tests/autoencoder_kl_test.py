"""AutoencoderKL against diffusers, and the names of its files.

tests/golden/make_autoencoder_kl.py has made what it is compared with.
"""

import functools
import importlib.util
import json
import re

from conftest import ROOT
from etils import epath
import formula_weights
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from vdm import train
from vdm.config import schema
from vdm.models import autoencoders
from vdm.models import import_weights
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import files
from vdm.models.autoencoders import pretrained
from vdm.models.autoencoders import tiny
from vdm.multihost import arrays
from vdm.training import autoencoder_stage
from vdm.training import sharding

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


def decoders(kind):
  """(codec, its own decoder of whole clips, parameters) of a small network."""
  if kind == 'autoencoder_kl':
    whole = autoencoder_kl.make(groups=4)[1]
    codec = make(factor=2, norm_groups=4)
    return codec, whole, parameters(tensors('no_attention'))
  sizes = tiny.Sizes(4, 16, (1, 1), normed=False)
  params = {'decoder': tiny.network('decoder', sizes).init(jax.random.key(0))}
  return make(kind='tiny', factor=2), tiny.decode, params


@pytest.mark.parametrize('kind', ['autoencoder_kl', 'tiny'])
def test_frames_are_decoded_one_after_the_other(kind):
  """Sixteen in the memory of a few, and on the devices that they are on."""
  codec, whole, params = decoders(kind)
  mesh = sharding.make_mesh(1, jax.devices()[:2])
  z = np.random.RandomState(0).normal(size=(2, 16, 8, 8, 4)).astype('f')
  by_rows = jax.device_put(z, arrays.batch_sharding(mesh))
  at_once, found, split = (
    jax.jit(decode).lower(params, x).compile()
    for decode, x in ((whole, z), (codec.decode, z), (codec.decode, by_rows))
  )
  np.testing.assert_allclose(
    found(params, z), at_once(params, z), rtol=1e-5, atol=1e-5
  )
  least, most = (
    x.memory_analysis().temp_size_in_bytes for x in (found, at_once)
  )
  assert least < most / 4
  y = split(params, by_rows)
  assert y.sharding.is_equivalent_to(arrays.batch_sharding(mesh), y.ndim)
  assert not re.search('all-(gather|to-all|reduce)', split.as_text())


def test_computes_in_the_dtype_of_its_input():
  params = parameters(tensors('four_levels'))
  x = jnp.zeros((1, 2, 16, 16, 3), jnp.bfloat16)
  codec = make(scaling_factor=0.18215)
  mean, logvar = jax.eval_shape(codec.encode, params, x)
  assert mean.dtype == logvar.dtype == jnp.bfloat16
  assert mean.shape == (1, 2, 2, 2, 4)
  assert jax.eval_shape(codec.decode, params, mean).dtype == jnp.bfloat16


# What only the config.json beside the weights says.


def description(name, **changes):
  """The config.json that diffusers writes for a network."""
  sizes = dict(quant=True, attention=True) | NETWORKS[name]
  return {
    '_class_name': 'AutoencoderKL',
    '_diffusers_version': '0.31.0',
    'act_fn': 'silu',
    'block_out_channels': list(sizes['widths']),
    'down_block_types': ['DownEncoderBlock2D'] * len(sizes['widths']),
    'force_upcast': True,
    'in_channels': 3,
    'latent_channels': sizes['channels'],
    'latents_mean': None,
    'layers_per_block': sizes['blocks'],
    'mid_block_add_attention': sizes['attention'],
    'norm_num_groups': sizes['groups'],
    'out_channels': 3,
    'sample_size': 256,
    'scaling_factor': 0.3611,
    'shift_factor': 0.1159,
    'up_block_types': ['UpDecoderBlock2D'] * len(sizes['widths']),
    'use_post_quant_conv': sizes['quant'],
    'use_quant_conv': sizes['quant'],
  } | changes


def options(folder, name, content=None, **changes):
  """`config.autoencoder` of a network whose files are written to a folder."""
  path = folder / 'weights.npz'
  np.savez(path, **tensors(name))
  if content is not None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / 'config.json').write_text(text)
  config = schema.default().autoencoder
  network = NETWORKS[name]
  config.update(kind='autoencoder_kl', weights=str(path))
  config.update(
    factor=2 ** (len(network['widths']) - 1), channels=network['channels']
  )
  config.update(changes)
  return config


def refused(config, words):
  """Checks that weights are refused in one sentence."""
  with pytest.raises(import_weights.WeightsError, match=words) as error:
    pretrained.load(config)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', NETWORKS)
def test_as_in_diffusers_with_what_config_json_says(name, tmp_path):
  content = description(name, scaling_factor=2.0, shift_factor=None)
  config = pretrained.resolve(options(tmp_path, name, content))
  assert config.norm_groups == NETWORKS[name]['groups']
  assert (config.scaling_factor, config.shift_factor) == (2.0, 0.0)
  params, _ = pretrained.load(config)
  codec = autoencoders.make_autoencoder(config)

  @jax.jit
  def through(params, x):
    mean, logvar = codec.encode(params, x)
    return mean, logvar, codec.decode(params, mean)

  # Another frame of the clip changes nothing.
  found = through(params, np.stack([frame(), frame()[::-1]])[None])
  golden = [GOLDEN[f'{name}/{key}'] for key in ('mean', 'logvar', 'y')]
  for ours, theirs in zip(found, golden):
    assert ours.shape == (1, 2, *theirs.shape)
  assert relative(found[0][0, 0] / 2.0, golden[0]) < 1e-5  # Asked: 1e-4.
  assert relative(found[1][0, 0] - 2 * np.log(2.0), golden[1]) < 1e-5
  assert relative(found[2][0, 0], golden[2]) < 1e-5


def test_without_config_json_the_groups_must_be_given(tmp_path):
  config = options(tmp_path, 'sd')
  refused(config, 'set config.autoencoder.norm_groups .32 in SD')
  # Something else of that name says nothing.
  refused(options(tmp_path, 'sd', {'model': 'unet'}), 'no config.json')
  with pytest.raises(import_weights.WeightsError, match='norm_groups'):
    pretrained.resolve(config)
  config.norm_groups = 32
  refused(config, 'norms of 32 groups do not divide its 16 channels')
  config.norm_groups = 8
  params, _ = pretrained.load(config)
  codec = autoencoders.make_autoencoder(pretrained.resolve(config))
  mean, _ = jax.jit(codec.encode)(params, frame()[None, None])
  assert relative(mean[0, 0], GOLDEN['sd/mean']) < 1e-5
  config.norm_groups = 16  # Another number gives something else.
  codec = autoencoders.make_autoencoder(config)
  mean, _ = jax.jit(codec.encode)(params, frame()[None, None])
  assert relative(mean[0, 0], GOLDEN['sd/mean']) > 0.1


def test_old_descriptions_leave_the_rest_to_their_library(tmp_path):
  # That of sd-vae-ft-mse has neither scaling_factor nor use_quant_conv.
  content = description('four_levels')
  for key in ('scaling_factor', 'shift_factor', 'norm_num_groups'):
    content.pop(key)
  for key in ('use_quant_conv', 'use_post_quant_conv', 'layers_per_block'):
    content.pop(key)
  config = pretrained.resolve(options(tmp_path, 'four_levels', content))
  assert config.norm_groups == 32  # The library's default.
  assert (config.scaling_factor, config.shift_factor) == (1.0, 0.0)
  pretrained.load(config)


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(_class_name='AutoencoderTiny'), 'says _class_name=AutoencoderTiny'),
    (
      dict(block_out_channels=[16, 32, 64]),
      r'block_out_channels=\[16, 32, 64\], and .* with \[16, 32, 32\]',
    ),
    (dict(layers_per_block=3), 'layers_per_block=3, and .* with 2'),
    (dict(latent_channels=16), 'latent_channels=16, and .* with 4'),
    (dict(use_quant_conv=False), 'use_quant_conv=False'),
    (dict(use_post_quant_conv=False), 'use_post_quant_conv=False'),
    (dict(mid_block_add_attention=False), 'mid_block_add_attention=False'),
    (dict(act_fn='relu'), 'act_fn=relu, and .* with silu'),
    (dict(down_block_types=['AttnDownEncoderBlock2D'] * 3), 'down_block_types'),
    (dict(norm_num_groups=32), 'norms of 32 groups do not divide'),
    (dict(norm_num_groups=0), 'invalid norm_num_groups: 0'),
    (dict(norm_num_groups=8.0), 'invalid norm_num_groups: 8.0'),
    (dict(norm_num_groups=True), 'invalid norm_num_groups: True'),
    (dict(norm_num_groups=10**400), 'norms of 1000'),
    (dict(norm_num_groups=[8] * 9999), 'invalid norm_num_groups'),
    (dict(scaling_factor=float('nan')), 'invalid scaling_factor: nan'),
    (dict(scaling_factor=10**400), 'invalid scaling_factor: 1000'),
    (dict(scaling_factor=-1.0), 'invalid scaling_factor: -1.0'),
    (dict(scaling_factor='1'), 'invalid scaling_factor: 1'),
    (dict(shift_factor=[0.1]), r'invalid shift_factor: \[0.1\]'),
  ],
)
def test_what_config_json_says_otherwise_is_named(changes, words, tmp_path):
  refused(options(tmp_path, 'sd', description('sd', **changes)), words)


@pytest.mark.parametrize(
  'text, words',
  [
    ('[]', 'config.json is refused: it is not a JSON object'),
    ('{', 'config.json is refused'),
    ('[' * 100_000, 'config.json is refused'),
    ('{"a": 1, "a": 2}', 'a name twice'),
    ('{"a": "' + 'b' * 1_000_000 + '"}', 'more than 1000000 bytes'),
    ('\xff', 'config.json is refused'),
  ],
)
def test_a_config_json_that_is_none_is_refused(text, words, tmp_path):
  refused(options(tmp_path, 'sd', text, norm_groups=8), words)


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(norm_groups=4), 'has norm_groups=8: set config.autoencoder.norm_gr'),
    (dict(scaling_factor=0.5), 'has scaling_factor=0.3611: set config'),
    (dict(shift_factor=0.5), 'has shift_factor=0.1159: set config'),
    (dict(channels=16), 'channels=4: set config.autoencoder.channels'),
    (dict(factor=8), 'factor=4: set config.autoencoder.factor'),
  ],
)
def test_settings_of_another_network_are_named(changes, words, tmp_path):
  refused(options(tmp_path, 'sd', description('sd'), **changes), words)
  values = dict(norm_groups=8, scaling_factor=0.3611, shift_factor=0.1159)
  pretrained.load(options(tmp_path, 'sd', description('sd'), **values))


def test_sides_of_different_networks_are_refused(tmp_path):
  sides = []
  for side, name in (('encoder', 'sd'), ('decoder', 'flux1')):
    sides.append(tmp_path / f'{side}.npz')
    found = {k: v for k, v in tensors(name).items() if side in k}
    np.savez(sides[-1], **found)
  config = options(tmp_path, 'sd', norm_groups=8)
  config.weights = ','.join(map(str, sides))
  refused(config, 'channels is 4 in the encoder and 16 in the decoder')


CLIPS = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), np.uint8)


def test_a_run_remembers_what_config_json_said(tmp_path):
  """So does a run that loads its autoencoder, without the files."""
  config = options(tmp_path, 'sd', description('sd'))
  directory = epath.Path(tmp_path) / 'run/autoencoder'
  autoencoder_stage.adopt(config, directory, jax.random.key(0), CLIPS)
  settings, params, stats, _ = files.load(directory)
  found = (settings.norm_groups, settings.scaling_factor, settings.shift_factor)
  assert found == (8, 0.3611, 0.1159)
  codec = autoencoders.make_autoencoder(settings)
  x = CLIPS.astype(np.float32) / 127.5 - 1
  z = np.asarray(jax.jit(codec.encode)(params, x)[0]).reshape(-1, 4)
  np.testing.assert_allclose(stats['mean'], z.mean(0), atol=1e-5)

  # The same command again, when the files are gone.
  (tmp_path / 'weights.npz').unlink()
  (tmp_path / 'config.json').unlink()
  again = autoencoder_stage.resolve(config, directory)
  assert (again.norm_groups, again.scaling_factor) == (8, 0.3611)

  other = config.copy_and_resolve_references()
  other.update(weights='', load=str(directory.parent))
  second = epath.Path(tmp_path) / 'second/autoencoder'
  found = autoencoder_stage.resolve(other, second)
  assert (found.norm_groups, found.scaling_factor) == (8, 0.3611)
  autoencoder_stage.adopt(other, second, jax.random.key(0), None)
  assert files.load(second)[3] == files.load(directory)[3]
  third = epath.Path(tmp_path) / 'third'
  for change in (dict(norm_groups=4), dict(scaling_factor=0.5)):
    wrong = other.copy_and_resolve_references()
    wrong.update(change)
    (name,) = change
    with pytest.raises(ValueError, match=f'set config.autoencoder.{name} to'):
      autoencoder_stage.adopt(wrong, third, jax.random.key(0), None)


def test_an_autoencoder_of_before_the_key_has_norms_of_32(tmp_path):
  config = options(tmp_path, 'four_levels', norm_groups=32)
  params, _ = pretrained.load(config)
  stats = {'mean': np.zeros(4, 'f'), 'scale': np.ones(4, 'f')}
  config.update(norm_groups=0, weights='')
  directory = epath.Path(tmp_path) / 'old/autoencoder'
  files.save(directory, config, params, stats)
  assert 'norm_groups' not in files.load(directory)[0]
  # Its own run's config.json stays as it was; one that loads it says 32.
  assert autoencoder_stage.resolve(config, directory).norm_groups == 0
  config.load = str(directory.parent)
  new = epath.Path(tmp_path) / 'new'
  assert autoencoder_stage.resolve(config, new).norm_groups == 32
  config.norm_groups = 16
  with pytest.raises(ValueError, match='has norm_groups=32'):
    autoencoder_stage.resolve(config, new)


def test_a_runs_config_json_says_what_was_used(
  data_root, tmp_path, monkeypatch
):
  import tiny_config

  config = tiny_config.make_config(data_root)
  config.autoencoder.update(options(tmp_path, 'sd', description('sd')))
  config.train.order = ('video',)
  runs = []
  monkeypatch.setattr(train, 'train_stages', lambda run, _: runs.append(run))
  train.train(config, tmp_path / 'run')
  used = runs[0].config.autoencoder
  assert (used.norm_groups, used.scaling_factor) == (8, 0.3611)
  assert config.autoencoder.norm_groups == 0
