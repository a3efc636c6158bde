"""The frozen autoencoder of a run: written once, then only read."""

from etils import epath
import jax
import numpy as np
import pytest
import tiny_runs

from vdm.common import errors
from vdm.config import schema
from vdm.models import autoencoders
from vdm.models.autoencoders import files
from vdm.training import autoencoder_stage
from vdm.training import sharding

CLIPS = tiny_runs.batch(rows=11, frames=2, size=16)['video']


def make_config(**changes):
  config = schema.default().autoencoder
  config.update(factor=4, channels=4, encoder_width=4, decoder_width=4)
  config.update(decoder_blocks=1, **changes)
  return config


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """The workdir of a run with an autoencoder, and its parameters."""
  config = make_config()
  workdir = epath.Path(tmp_path_factory.mktemp('run'))
  codec = autoencoders.make_autoencoder(config)
  params = codec.init(jax.random.key(0), CLIPS / 127.5 - 1.0)
  params = jax.tree.map(np.asarray, params)
  autoencoder_stage.write(config, workdir / 'autoencoder', params, CLIPS)
  return workdir, params


def test_statistics_are_those_of_all_clips(written):
  workdir, params = written
  found, _ = autoencoder_stage.load(
    workdir / 'autoencoder', sharding.make_mesh()
  )
  # At first the latents are principal components, by hand in float64: of 11
  # clips, in pieces of 8 the last of which is not full.
  video = CLIPS.astype(np.float64) / 127.5 - 1.0
  patches = video.reshape(11, 2, 4, 4, 4, 4, 3).swapaxes(3, 4)
  patches = patches.reshape(-1, 48)
  pca = params['pca']
  z = (patches - pca['mean']) @ pca['basis'].T / pca['scale']
  stats = found['stats']
  np.testing.assert_allclose(stats['mean'], z.mean(0), atol=1e-5)
  shared = np.sqrt(z.var(0).mean())
  np.testing.assert_allclose(stats['scale'], np.full(4, shared), rtol=1e-4)


def test_it_comes_back_bit_for_bit_on_every_device(written):
  workdir, params = written
  found, _ = autoencoder_stage.load(
    workdir / 'autoencoder', sharding.make_mesh()
  )
  jax.tree.map(np.testing.assert_array_equal, found['params'], params)
  for leaf in jax.tree.leaves(found):
    assert leaf.sharding.is_fully_replicated
    assert len(leaf.sharding.device_set) == 8


def test_a_discriminator_stays_behind(written, tmp_path):
  _, params = written
  config = make_config(adversarial_weight=0.1, discriminator_width=4)
  codec = autoencoders.make_autoencoder(config)
  both = codec.init(jax.random.key(0), CLIPS / 127.5 - 1.0)
  assert both.keys() - params.keys() == {'discriminator'}
  autoencoder_stage.write(
    config, epath.Path(tmp_path), jax.device_get(both), CLIPS
  )
  _, found, _, _ = files.load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_another_runs_is_taken_as_it_is(written, tmp_path):
  workdir, params = written
  # The other run's own settings go with it, whatever this run's training has.
  config = make_config(load=str(workdir), kl_weight=0.5)
  directory = epath.Path(tmp_path) / 'autoencoder'
  autoencoder_stage.adopt(config, directory, jax.random.key(1), None)
  assert files.load(directory)[3] == files.load(workdir / 'autoencoder')[3]
  found, _ = autoencoder_stage.load(directory, sharding.make_mesh())
  jax.tree.map(np.testing.assert_array_equal, found['params'], params)


def test_another_network_is_refused(written, tmp_path):
  workdir, _ = written
  directory = epath.Path(tmp_path) / 'autoencoder'
  for change in (
    dict(channels=8),
    dict(factor=8),
    dict(time_factor=2),
    dict(decoder_blocks=2),
  ):
    config = make_config(load=str(workdir))
    config.update(change)
    (name,) = change
    with pytest.raises(ValueError, match=f'config.autoencoder.{name} to that'):
      autoencoder_stage.adopt(config, directory, jax.random.key(1), None)
    assert not files.exists(directory)
  config = make_config(load=str(tmp_path))
  with pytest.raises(FileNotFoundError, match='No autoencoder in'):
    autoencoder_stage.adopt(config, directory, jax.random.key(1), None)


def test_what_an_earlier_start_left_is_what_is_asked_for(written, tmp_path):
  """Before the first checkpoint anything may have changed since."""
  workdir, _ = written
  directory = workdir / 'autoencoder'
  autoencoder_stage.check(make_config(), directory)
  autoencoder_stage.check(make_config(load=str(workdir)), directory)
  autoencoder_stage.check(make_config(), epath.Path(tmp_path) / 'none')
  with pytest.raises(errors.UsageError, match="has kind='kl', not 'pca': del"):
    autoencoder_stage.check(make_config(kind='pca'), directory)
  with pytest.raises(errors.UsageError, match='decoder_width=4, not 8'):
    config = make_config()
    config.decoder_width = 8
    autoencoder_stage.check(config, directory)
  with pytest.raises(FileNotFoundError, match='nothing'):
    autoencoder_stage.check(
      make_config(load=str(tmp_path / 'nothing')), directory
    )
  other = epath.Path(tmp_path) / 'other'
  codec = autoencoders.make_autoencoder(make_config())
  params = codec.init(jax.random.key(1), CLIPS / 127.5 - 1.0)
  autoencoder_stage.write(
    make_config(),
    other / 'autoencoder',
    jax.tree.map(np.asarray, params),
    CLIPS,
  )
  with pytest.raises(errors.UsageError, match=f'is not that of {other}'):
    autoencoder_stage.check(make_config(load=str(other)), directory)


def test_pixels_need_no_stage(tmp_path):
  config = make_config()
  config.kind = 'identity'
  directory = epath.Path(tmp_path) / 'autoencoder'
  autoencoder_stage.adopt(config, directory, jax.random.key(0), CLIPS)
  found, _ = autoencoder_stage.load(directory, sharding.make_mesh())
  assert found['params'] == {}
  x = CLIPS.astype(np.float64).reshape(-1, 3) / 127.5 - 1.0
  np.testing.assert_allclose(found['stats']['mean'], x.mean(0), atol=1e-5)
  deviation = np.sqrt(x.var(0).mean())
  np.testing.assert_allclose(
    found['stats']['scale'], np.full(3, deviation), rtol=1e-4
  )
