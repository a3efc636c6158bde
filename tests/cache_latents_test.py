"""Training on cached latents is training on the frames they are of."""

import os
import pathlib
import subprocess
import sys

from conftest import ROOT
import jax
import numpy as np
import pytest
import tiny_config
import tiny_runs

from vdm.data import builders
from vdm.data import cache_folder
from vdm.data import latent_cache
from vdm.models import autoencoders
from vdm.models.autoencoders import files
from vdm.preparation import datasets
from vdm.sampling import coders
from vdm.training import autoencoder_stage
from vdm.training import cache_latents
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import stages

SETTINGS = dict(
  factor=4, channels=4, encoder_width=4, decoder_width=4, decoder_blocks=1
)


@pytest.fixture(scope='module')
def made(data_root, tmp_path_factory):
  """A config, the folder of a run with an autoencoder, and its cache."""
  config = tiny_config.make_config(data_root)
  config.autoencoder.update(SETTINGS)
  config.data.flip = True
  workdir = tmp_path_factory.mktemp('run')
  config.data.latents = str(workdir / 'latents')
  codec = autoencoders.make_autoencoder(config.autoencoder)
  clips = tiny_runs.batch(rows=4, frames=1, size=16)['video']
  params = codec.init(jax.random.key(0), coders.to_float(clips))
  # Noise of the posterior that is worth sampling, and not the same anywhere.
  params = jax.tree.map(np.asarray, tiny_runs.randomise(params, scale=0.5))
  params['pca'] = jax.tree.map(
    np.asarray, codec.init(jax.random.key(0), coders.to_float(clips))['pca']
  )
  autoencoder_stage.write(
    config.autoencoder, workdir / 'autoencoder', params, clips
  )
  plan = cache_latents.build(config, workdir)
  return config, workdir, plan


def test_the_cache_says_what_it_is_of(made):
  config, workdir, plan = made
  assert plan['autoencoder'] == files.load(workdir / 'autoencoder')[3]
  info = builders.read_info(datasets.dataset_dir(config.data))
  assert plan['dataset']['fingerprint'] == info['fingerprint']
  assert plan['frames'] == 24 * 4 and plan['unreadable'] == 0
  assert (plan['resolution'], plan['mirrored']) == (16, True)
  assert plan['shape'] == [4, 4, 4]


def test_losses_agree(made):
  config, workdir, _ = made
  config = config.copy_and_resolve_references()
  span = next(s for s in stages.spans(config) if s.name == 'video')
  mesh = sharding.make_mesh()
  source = builders.open_source(datasets.ensure(config.data), 'train')
  autoencoder, fingerprint = autoencoder_stage.load(
    workdir / 'autoencoder', mesh
  )

  def losses(posterior, folder):
    config.data.latents = folder
    config.diffusion.sample_posterior = posterior
    objective = objectives.make_objective(config, span.stage, mesh)
    params = tiny_runs.randomise(objective.abstract_params())
    loss = jax.jit(
      lambda params, batch, key: objective.loss(
        params, autoencoder, objective.draw(batch, key, 0)
      )[:2]
    )
    found = []
    with inputs.make_batches(config, source, span, 2, fingerprint) as batches:
      for n in range(3):
        batch = next(batches)
        assert ('mean' in batch) == bool(folder)
        total, count = loss(params, batch, jax.random.key(n))
        found.append(float(total / count))
    return np.array(found)

  plain = {posterior: losses(posterior, '') for posterior in (False, True)}
  for posterior, expected in plain.items():
    cached = losses(posterior, str(workdir / 'latents'))
    # Means and log-variances are rounded to 11 bits, no two clips alike.
    np.testing.assert_allclose(cached, expected, rtol=1e-3)
    assert len(set(expected)) == 3
  assert np.abs(plain[False] - plain[True]).max() > 5e-3


def test_another_autoencoder_is_refused(made):
  config, _, plan = made
  span = next(s for s in stages.spans(config) if s.name == 'video')
  source = builders.open_source(datasets.ensure(config.data), 'train')
  with pytest.raises(cache_folder.CacheError, match='another autoencoder'):
    inputs.make_batches(config, source, span, 0, 'e' * 64)
  with pytest.raises(cache_folder.CacheError, match='whole frames'):
    crop = span._replace(stage=span.stage.copy_and_resolve_references())
    crop.stage.crop = 8
    inputs.make_batches(config, source, crop, 0, plan['autoencoder'])
  # The stage that trains the autoencoder sees frames.
  own = next(s for s in stages.spans(config) if s.name == 'autoencoder')
  assert inputs.open_cache(config, source, own, '') is None


def test_what_cannot_be_encoded_is_named(made, tmp_path):
  config, workdir, _ = made
  config = config.copy_and_resolve_references()
  with pytest.raises(cache_folder.CacheError, match='no autoencoder yet'):
    cache_latents.build(config, tmp_path)
  config.stages.image.resolution = 8
  with pytest.raises(cache_folder.CacheError, match='clips of 8 and 16 px'):
    cache_latents.build(config, workdir)
  config.train.order = ('autoencoder',)
  with pytest.raises(cache_folder.CacheError, match='none reads latents'):
    cache_latents.build(config, workdir)
  config.data.latents = ''
  with pytest.raises(
    cache_folder.CacheError, match='--config.data.latents=FOLDER'
  ):
    cache_latents.build(config, workdir)


CONFIG = """
import tiny_config

def get_config():
  config = tiny_config.make_config({root!r})
  config.autoencoder.kind = 'pca'
  config.train.order = ('image', 'video')
  return config
"""


def prepare(config, *arguments):
  return subprocess.run(
    [
      sys.executable,
      '-m',
      'vdm.prepare',
      'latents',
      '--config',
      config,
      *arguments,
    ],
    cwd=ROOT,
    env=dict(os.environ, PYTHONPATH=str(ROOT / 'tests')),
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command(made, data_root, tmp_path):
  """With principal components, which nobody has to train first."""
  config = tmp_path / 'config.py'
  config.write_text(CONFIG.format(root=str(data_root)))
  folder = tmp_path / 'latents'
  result = prepare(
    config, f'--config.data.latents={folder}', '--workdir', tmp_path / 'run'
  )
  assert result.returncode == 0, result.stderr
  assert 'Latents of 96 frames (0 unreadable)' in result.stdout
  assert '4x4x4 of 16 px' in result.stdout
  fingerprint = files.load(tmp_path / 'run/autoencoder')[3]
  assert latent_cache.read_plan(str(folder))['autoencoder'] == fingerprint
  assert pathlib.Path(folder, '00000.npy').exists()


def test_the_command_needs_a_run(data_root, tmp_path):
  config = tmp_path / 'config.py'
  config.write_text(CONFIG.format(root=str(data_root)))
  result = prepare(config)
  assert result.returncode == 2
  assert result.stderr.startswith('--workdir is missing')
  assert result.stderr.count('\n') == 1
