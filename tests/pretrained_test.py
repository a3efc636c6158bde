"""Published autoencoders in a run: from files to frozen latents."""

import json

from conftest import ROOT
from etils import epath
import formula_weights
import jax
import numpy as np
import pytest
import tiny_config
import tiny_runs

from vdm import train
from vdm.config import schema
from vdm.models import import_weights
from vdm.models.autoencoders import files
from vdm.models.autoencoders import pretrained
from vdm.models.autoencoders import tiny
from vdm.training import autoencoder_stage
from vdm.training import sharding
from vdm.training import writer

CLIPS = tiny_runs.batch(rows=11, frames=2, size=16)['video']


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
  """The two files of a tiny autoencoder, and their sha256."""
  folder = tmp_path_factory.mktemp('weights')
  paths, hashes = [], []
  for side in ('encoder', 'decoder'):
    tensors = {}
    for index, name in enumerate(ORDER[side]):
      for theirs, ours in tiny.PARTS.items():
        shape = SHAPES.get((name.split('_')[0], ours))
        if shape and (ours != 'bias' or name in ('stem', 'head')):
          key = f'{index}.{theirs}'
          tensors[key] = formula_weights.draw(key, ends(shape, side, name))
    paths.append(folder / f'{side}.npz')
    np.savez(paths[-1], **tensors)
    hashes.append(import_weights.read(paths[-1]).sha256)
  return paths, hashes


# The layers in the authors' order, '' without parameters.
ORDER = {
  'encoder': (
    'stem block_0_0 down_1 block_1_0 block_1_1 block_1_2 down_2 block_2_0 '
    'block_2_1 block_2_2 down_3 block_3_0 block_3_1 block_3_2 head'
  ).split(' '),
  'decoder': (
    ' stem  block_0_0 block_0_1 block_0_2  up_0 block_1_0 block_1_1 block_1_2 '
    ' up_1 block_2_0 block_2_1 block_2_2  up_2 block_3_0 head'
  ).split(' '),
}
# (kind of layer, part): shape in PyTorch.
SHAPES = {
  (kind, part): (64, 64, 3, 3) if 'kernel' in part else (64,)
  for kind, parts in {
    'stem': ('kernel', 'bias'),
    'down': ('kernel',),
    'up': ('kernel',),
    'head': ('kernel', 'bias'),
    'block': tuple(
      f'conv_{i}/{part}' for i in range(3) for part in ('kernel', 'bias')
    ),
  }.items()
  for part in parts
}


def ends(shape, side, name):
  """The shape of a first or last layer: 3 colours, 4 channels."""
  cin, cout = (3, 4) if side == 'encoder' else (4, 3)
  if name == 'stem' and len(shape) > 1:
    return (64, cin, 3, 3)
  if name == 'head':
    return (cout, *shape[1:])
  return shape


def make_config(parts, **changes):
  config = schema.default().autoencoder
  paths, hashes = parts
  config.update(
    kind='tiny',
    factor=8,
    channels=4,
    weights=f'{paths[0]}, {paths[1]}',
    weights_sha256=','.join(hashes),
  )
  config.update(changes)
  return config


def test_a_run_adopts_them_with_statistics_of_its_own_data(parts, tmp_path):
  directory = epath.Path(tmp_path) / 'autoencoder'
  config = make_config(parts, weights_sha256='')
  autoencoder_stage.adopt(config, directory, jax.random.key(0), CLIPS)
  settings, params, stats, fingerprint = files.load(directory)
  x = CLIPS.astype(np.float32) / 127.5 - 1
  z = np.asarray(jax.jit(tiny.encode)(params, x)[0], np.float64)
  z = z.reshape(-1, 4)
  np.testing.assert_allclose(stats['mean'], z.mean(0), atol=1e-5)
  shared = np.sqrt(z.var(0).mean())
  np.testing.assert_allclose(stats['scale'], np.full(4, shared), rtol=1e-4)
  # What they were is recorded, where they lay is not.
  assert settings.weights_sha256 == ','.join(parts[1])
  assert 'weights' not in settings
  # The same files elsewhere, with their hashes given, are the same
  # autoencoder; and so it is when another run takes it from this one.
  paths = []
  for path in parts[0]:
    paths.append(tmp_path / f'copy-{path.name}')
    paths[-1].write_bytes(path.read_bytes())
  other = epath.Path(tmp_path) / 'other'
  config = make_config((paths, parts[1]))
  autoencoder_stage.adopt(
    config, other / 'autoencoder', jax.random.key(0), CLIPS
  )
  assert files.load(other / 'autoencoder')[3] == fingerprint
  config = make_config(parts, weights='', load=str(other), decoder_width=7)
  third = epath.Path(tmp_path) / 'third'
  autoencoder_stage.adopt(config, third, jax.random.key(0), None)
  assert files.load(third)[3] == fingerprint
  found, _ = autoencoder_stage.load(third, sharding.make_mesh())
  jax.tree.map(np.testing.assert_array_equal, found['params'], params)


def test_they_are_stored_as_float32_arrays_without_pickle(parts, tmp_path):
  params, _ = pretrained.load(make_config(parts))
  stats = {'mean': np.zeros(4, 'f'), 'scale': np.ones(4, 'f')}
  files.save(tmp_path, make_config(parts), params, stats)
  with np.load(tmp_path / 'weights.npz', allow_pickle=False) as arrays:
    assert {arrays[name].dtype for name in arrays} == {np.dtype(np.float32)}
    assert len(arrays.files) == 2 * (2 + 2 + 3 + 10 * 6)
  content = json.loads((tmp_path / 'config.json').read_text())
  assert content['settings']['kind'] == 'tiny'


@pytest.mark.slow
def test_a_run_trains_in_their_latents_and_goes_on(parts, data_root, tmp_path):
  config = tiny_config.make_config(data_root)
  config.autoencoder.update(make_config(parts, statistics_clips=8))
  config.train.order = ('video',)
  config.stages.video.steps = 2
  assert train.train(config, tmp_path) == 0
  with np.load(tmp_path / 'final/samples.npz', allow_pickle=False) as arrays:
    assert arrays['videos'].shape == (8, 4, 16, 16, 3)
  # The files are of no more use: the run has its own.
  config.autoencoder.weights = 'gone-encoder.pth,gone-decoder.pth'
  config.stages.video.steps = 3
  assert train.train(config, tmp_path) == 0
  losses = [row for row in writer.read_rows(tmp_path) if 'loss' in row]
  assert [row['step'] for row in losses] == [1, 2, 3]
  assert all(np.isfinite(row['loss']) for row in losses)


def test_what_does_not_fit_is_one_sentence(parts, tmp_path):
  (encoder, _), (first, second) = parts

  def refused(words, **changes):
    directory = epath.Path(tmp_path) / 'autoencoder'
    with pytest.raises(ValueError, match=words) as error:
      autoencoder_stage.adopt(
        make_config(parts, **changes), directory, None, CLIPS
      )
    assert '\n' not in str(error.value)
    assert not files.exists(directory)

  refused('channels=4: set config.autoencoder.channels to that', channels=8)
  refused('factor=8: set config.autoencoder.factor to that', factor=4)
  refused('has sha256', weights_sha256=f'{second},{first}')
  refused('has no decoder', weights=str(encoder), weights_sha256='')
  refused(
    'holds the same side', weights=f'{encoder},{encoder}', weights_sha256=''
  )
  refused('no file of weights', weights='nowhere', weights_sha256='')
  other = ROOT / 'tests/golden/weight_files/zip.pth'
  refused('is not a tensor of a tiny', weights=str(other), weights_sha256='')
