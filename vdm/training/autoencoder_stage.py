"""The autoencoder of a run: written once into its folder, then only read.

It is the average of the run's own first stage, another run's
(`autoencoder.load`), a published one (`autoencoder.weights`), or one without
parameters (`identity`).
"""

from absl import logging
from etils import epath
import jax
import numpy as np

from vdm import generate
from vdm.models import autoencoders
from vdm.models.autoencoders import discriminator
from vdm.models.autoencoders import files
from vdm.models.autoencoders import latents
from vdm.models.autoencoders import pretrained
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.training import inputs
from vdm.training import streams
from vdm.training import train_state

BATCH = 8  # Clips encoded at once for the statistics.
# The settings that an autoencoder's parameters depend on.
NETWORK = ('kind', 'factor', 'channels')
BRANCHES = (  # With kind='kl' these as well.
  'bottleneck',
  'levels',
  'encoder_width',
  'encoder_blocks',
  'decoder_width',
  'decoder_blocks',
  'decoder_temporal',
  'initial_logvar',
)


def exists(directory):
  """Whether an autoencoder is there: one answer, the first process's, for all.

  Each looking for itself, a late process could see what the first one has
  just written, and be missing where the others wait for it.
  """
  return coordination.first_says('the autoencoder', files.exists(directory))


def write(config, directory, params, clips):
  """Measures the latents of clips and writes the frozen autoencoder.

  Args:
    config: `config.autoencoder`.
    directory: `<workdir>/autoencoder`.
    params: nested dict of arrays, whole on this host.
    clips: uint8 [n, t, h, w, 3], training clips.

  Raises:
    FileExistsError: the folder holds another one.
  """
  # A discriminator was there to train with.
  params = {k: v for k, v in params.items() if k != discriminator.NAME}
  codec = autoencoders.make_autoencoder(config)
  encode = jax.jit(
    lambda params, video: codec.encode(params, generate.to_float(video))[0]
  )
  means = (
    np.asarray(encode(params, clips[i : i + BATCH]))
    for i in range(0, len(clips), BATCH)
  )
  publish(directory, config, params, latents.statistics(means, config.scale))


def publish(directory, config, params, stats):
  """The first process writes the files; returns on all when they are there."""
  if coordination.is_first():
    files.save(directory, config, params, stats)
  coordination.gather('writing the autoencoder')


def adopt(config, directory, key, clips):
  """Writes an autoencoder that no stage of this run trains.

  Args:
    config: `config.autoencoder`; `load` names the run to take one of, or
      `weights` the files of a published one.
    directory: `<workdir>/autoencoder`.
    key: of the initial values, where there is nothing to load.
    clips: uint8 [n, t, h, w, 3], for the statistics; not used to load.

  Raises:
    ValueError: the one to load is another network than the run's.
  """
  if not config.load:
    if config.weights:
      params, sha256 = pretrained.load(config)
      config = config.copy_and_resolve_references()
      config.weights_sha256 = sha256
    else:
      codec = autoencoders.make_autoencoder(config)
      params = codec.init(key, generate.to_float(clips))
    write(config, directory, params, clips)
    return
  settings, params, stats, _ = files.load(
    epath.Path(config.load) / 'autoencoder'
  )
  for name in NETWORK + (BRANCHES if config.kind == 'kl' else ()):
    if settings.get(name) != config[name]:
      raise ValueError(
        f'The autoencoder of {config.load} has {name}={settings.get(name)!r}: '
        f'set config.autoencoder.{name} to that, not to {config[name]!r}.'
      )
  publish(directory, settings, params, stats)


def freeze(config, source, span, state, workdir, *, trained):
  """Writes the average of a stage's autoencoder.

  Args:
    config: the run's.
    source: `builders.ClipSource` of the training split.
    span: the stage.
    state: `state.TrainState` at its end.
    workdir: the run's folder.
    trained: whether it was trained just now. If so, an autoencoder that is
      there already must be the same; a run that was resumed at the border
      keeps it.
  """
  directory = workdir / 'autoencoder'
  if exists(directory) and not trained:
    return
  params = arrays.to_host(train_state.averaged(state, config.optim.ema[-1]))
  num = config.autoencoder.statistics_clips
  clips = inputs.load_eval_clips(config, source, span, num)
  write(config.autoencoder, directory, params, clips['video'])


def ensure(config, source, span, workdir, mesh):
  """The autoencoder that a stage works in, written first where it must be.

  Args:
    config: the run's.
    source: `builders.ClipSource` of the training split.
    span: the stage.
    workdir: the run's folder.
    mesh: to copy it to every device of.

  Returns:
    ({'params', 'stats'}, fingerprint); nothing for the stage that trains one.
  """
  if span.stage.objective == 'autoencoder':
    return {}, ''
  directory = workdir / 'autoencoder'
  if not exists(directory):
    num = config.autoencoder.statistics_clips
    clips = inputs.load_eval_clips(config, source, span, num)
    key = streams.stream(config, 'init', 'autoencoder')
    adopt(config.autoencoder, directory, key, clips['video'])
  return load(directory, mesh)


def load(directory, mesh):
  """The run's autoencoder, a copy on every device, and its fingerprint."""
  _, params, stats, fingerprint = files.load(directory)
  logging.info('Autoencoder %s, %s.', directory, fingerprint[:12])
  frozen = arrays.copies(mesh, {'params': params, 'stats': stats})
  return frozen, fingerprint
