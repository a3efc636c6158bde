"""Encodes a data set once, for the diffusion stages of runs that share it."""

from typing import Any

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict

from vdm.common import buckets
from vdm.common import sizes
from vdm.config import check
from vdm.data import builders
from vdm.data import cache_folder
from vdm.data import latent_cache
from vdm.data import latent_cache_writer
from vdm.models import autoencoders
from vdm.models.autoencoders import files
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.preparation import datasets
from vdm.sampling import coders
from vdm.training import autoencoder_keys
from vdm.training import autoencoder_stage
from vdm.training import inputs
from vdm.training import sharding
from vdm.training import stages
from vdm.training import train_state

BATCH = 256  # Frames encoded at once, over the devices of a process.


def build(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
  """Writes `data.latents`, or resumes writing it; processes share the work.

  Args:
    config: of the runs that will train on it.
    workdir: of the run whose autoencoder encodes. One that has nothing to
      train, or is loaded, is written there first.

  Returns:
    What the cache holds, see `latent_cache.Cache.plan`.

  Raises:
    CacheError: it cannot be written, with the reason.
    FileNotFoundError: the data set or the autoencoder is missing.
  """
  if not config.data.latents:
    raise cache_folder.CacheError(
      'Say where the latents go: --config.data.latents=FOLDER.'
    )
  check.check_devices(config, jax.device_count(), jax.process_count())
  span, size = _diffusion_stages(config)
  directory = datasets.ensure(config.data)
  source = builders.open_source(directory, 'train', config.data.split_list)
  codec, params, fingerprint = _autoencoder(config, source, span, workdir)
  if codec.factor[0] > 1:
    raise cache_folder.CacheError(
      f'This autoencoder makes one latent of {codec.factor[0]} frames, and a '
      'cache holds those of single frames: train without it.'
    )
  plan = latent_cache_writer.make_plan(
    source,
    autoencoder=fingerprint,
    shape=coders.latent_shape(codec, 1, size)[1:],
    size=size,
    mirrored=config.data.flip,
  )
  mesh = sharding.make_mesh(devices=jax.local_devices())
  latent_cache_writer.write(
    config.data.latents,
    plan,
    source,
    make_encode(codec, params, mesh),
    batch=-(-BATCH // mesh.size) * mesh.size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    wait=lambda: coordination.gather('the latent cache'),
  )
  return latent_cache.read_plan(config.data.latents)


def make_encode(
  codec: autoencoders.Autoencoder,
  params: dict[str, Any],
  mesh: jax.sharding.Mesh,
) -> latent_cache_writer.Encode:
  """Returns the function that encodes frames on a process's devices.

  In float32, whatever a run computes in: the rounding to what is stored is
  then all that is lost.

  Args:
    codec: the autoencoder.
    params: its parameters.
    mesh: of this process's devices, which must divide the number of frames.
  """
  params = jax.device_put(params, arrays.replicated(mesh))
  rows = arrays.batch_sharding(mesh)

  @jax.jit
  def encode(params, frames):
    mean, logvar = codec.encode(params, coders.to_float(frames[:, None]))
    return mean[:, 0], logvar[:, 0]

  return lambda frames: encode(params, jax.device_put(frames, rows))


def _diffusion_stages(config):
  """Returns the first stage that reads latents, and the size of all."""
  spans = [
    span
    for span in stages.spans(config)
    if span.stage.objective != 'autoencoder'
  ]
  if not spans:
    raise cache_folder.CacheError(
      'No stage of train.order is a diffusion stage, so none reads latents.'
    )
  found = sorted({sizes.of(span.stage) for span in spans})
  if len(found) > 1:
    shown = ' and '.join(map(sizes.text, found))
    raise cache_folder.CacheError(
      f'The diffusion stages have clips of {shown} px, and a cache is of one '
      'size: name the stages of one in train.order.'
    )
  return spans[0], found[0]


def _autoencoder(config, source, span, workdir):
  """Returns functions, parameters and fingerprint of a run's autoencoder."""
  workdir = buckets.given(workdir, '--workdir')
  trains = autoencoder_keys.trains_own(config)
  if trains and not autoencoder_stage.exists(workdir / 'autoencoder'):
    raise cache_folder.CacheError(
      f'{workdir} has no autoencoder yet: train its autoencoder stage first, '
      'for example with --config.train.order="(\'autoencoder\',)".'
    )
  mesh = sharding.make_mesh()
  autoencoder_stage.ensure(
    config.autoencoder,
    workdir / 'autoencoder',
    train_state.stream(config.seed, 'init', 'autoencoder'),
    lambda: inputs.load_eval_clips(
      config, source, span, config.autoencoder.statistics_clips
    )['video'],
    mesh,
  )
  settings, params, _, fingerprint = files.load(workdir / 'autoencoder')
  logging.info('Encoding with %s, %s.', workdir, fingerprint[:12])
  return autoencoders.make_autoencoder(settings), params, fingerprint
