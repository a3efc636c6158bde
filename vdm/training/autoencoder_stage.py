"""The autoencoder of a run: written once into its folder, then only read.

It is the average of the run's own first stage, another run's
(`autoencoder.load`), a published one (`autoencoder.weights`), or one without
parameters (`identity`).
"""

from collections.abc import Callable
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import ui8
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm import trained
from vdm.common import errors
from vdm.models import autoencoders
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import discriminator
from vdm.models.autoencoders import files
from vdm.models.autoencoders import latents
from vdm.models.autoencoders import pretrained
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.sampling import coders

BATCH = 8  # Clips encoded at once for the statistics.
# The settings that an autoencoder's parameters depend on.
NETWORK = ('kind', 'factor', 'time_factor', 'channels')
BRANCHES = (  # With kind='kl' these as well.
  'bottleneck',
  'levels',
  'encoder_width',
  'encoder_blocks',
  'decoder_width',
  'decoder_blocks',
  'decoder_temporal',
  'initial_logvar',
  'time_factor',
)


def exists(directory: epath.Path) -> bool:
  """Returns whether an autoencoder is there, as the first process sees it.

  If each process looked for itself, a late one could see what the first one
  has just written, and be missing where the others wait for it.
  """
  return coordination.first_says('the autoencoder', files.exists(directory))


def write(
  options: ConfigDict,
  directory: epath.Path,
  params: dict[str, Any],
  clips: ui8['n t h w 3'],
) -> None:
  """Measures the latents of training clips and writes the frozen autoencoder.

  Args:
    options: `config.autoencoder`.
    directory: `<workdir>/autoencoder`.
    params: nested dict of arrays, whole on this process.
    clips: training clips.

  Raises:
    FileExistsError: the folder holds another autoencoder.
  """
  # The discriminator was only there for training.
  params = {k: v for k, v in params.items() if k != discriminator.NAME}
  codec = autoencoders.make_autoencoder(options)
  encode = jax.jit(
    lambda params, video: codec.encode(params, coders.to_float(video))[0]
  )
  means = (
    np.asarray(encode(params, clips[i : i + BATCH]))
    for i in range(0, len(clips), BATCH)
  )
  _publish(directory, options, params, latents.statistics(means, options.scale))


def resolve(options: ConfigDict, directory: epath.Path) -> ConfigDict:
  """Fills in the settings of a published autoencoder that it brings along.

  Args:
    options: `config.autoencoder`.
    directory: `<workdir>/autoencoder`; what is there comes before the run that
      `load` names, and that before the files of `weights`.

  Raises:
    WeightsError: they are unknown, or `options` has others.
    FileNotFoundError: the run to load has no autoencoder.
  """
  if options.kind != 'autoencoder_kl':
    return options
  if exists(directory):
    with errors.as_usage():
      source, known = directory, files.load(directory)[0].to_dict()
  elif options.load:
    source = options.load
    # Files of before there was this key are of networks of 32.
    known = {'norm_groups': autoencoder_kl.GROUPS}
    with errors.as_usage('config.autoencoder.load: '):
      known |= trained.load_autoencoder(source)[0].to_dict()
  else:
    return pretrained.resolve(options)
  options = options.copy_and_resolve_references()
  if known['kind'] == options.kind:
    pretrained.fill(options, known, str(source))
  return options


def check(options: ConfigDict, directory: epath.Path) -> None:
  """Checks that an autoencoder is what a run that begins asks for.

  It is there before the run's first checkpoint where `vdm.prepare latents` or
  an earlier start wrote it, and then everything may have changed since.

  Args:
    options: `config.autoencoder`, see `resolve`.
    directory: `<workdir>/autoencoder`.

  Raises:
    UsageError: it is another one.
  """
  if not exists(directory):
    return
  with errors.as_usage():
    settings, _, _, fingerprint = files.load(directory)
  differs = ''
  if found := _difference(options, settings):
    name, value = found
    differs = f'has {name}={value!r}, not {options[name]!r}'
  elif options.load:
    with errors.as_usage('config.autoencoder.load: '):
      if fingerprint != trained.load_autoencoder(options.load)[3]:
        differs = f'is not that of {options.load}'
  elif options.weights:
    with errors.as_usage('config.autoencoder.weights: '):
      if settings.get('weights_sha256') != pretrained.load(options)[1]:
        differs = f'is not that of {options.weights}'
  if differs:
    raise errors.UsageError(
      f'{directory}, which an earlier start has written, {differs}: delete '
      'that folder, or give another --workdir.'
    )


def _difference(options, settings) -> tuple[str, Any] | None:
  """Returns the first setting of a network that differs: (name, its value)."""
  # Files of before there was this key are of one frame a latent.
  known = {'time_factor': 1} | settings.to_dict()
  names = NETWORK + (BRANCHES if options.kind == 'kl' else ())
  differing = ((x, known.get(x)) for x in names if known.get(x) != options[x])
  return next(differing, None)


def adopt(
  options: ConfigDict,
  directory: epath.Path,
  key: jax.Array,
  clips: ui8['n t h w 3'],
) -> None:
  """Writes an autoencoder that no stage of this run trains.

  Args:
    options: `config.autoencoder`; `load` names a run to copy it from, or
      `weights` the files of a published one.
    directory: `<workdir>/autoencoder`.
    key: of the initial values, if there is nothing to load.
    clips: training clips for the statistics; not used with `load`.

  Raises:
    UsageError: what is to be loaded cannot be read, or is another network
      than the run's.
  """
  options = resolve(options, directory)
  if options.load:
    with errors.as_usage('config.autoencoder.load: '):
      settings, params, stats, _ = trained.load_autoencoder(options.load)
    if found := _difference(options, settings):
      name, value = found
      raise errors.UsageError(
        f'The autoencoder of {options.load} has {name}={value!r}: set '
        f'config.autoencoder.{name} to that, not to {options[name]!r}.'
      )
    _publish(directory, settings, params, stats)
    return
  if options.weights:
    with errors.as_usage('config.autoencoder.weights: '):
      params, sha256 = pretrained.load(options)
    options = options.copy_and_resolve_references()
    options.weights_sha256 = sha256
  else:
    codec = autoencoders.make_autoencoder(options)
    params = codec.init(key, coders.to_float(clips))
  write(options, directory, params, clips)


def ensure(
  options: ConfigDict,
  directory: epath.Path,
  key: jax.Array,
  clips: Callable[[], ui8['n t h w 3']],
  mesh: jax.sharding.Mesh,
) -> tuple[dict[str, Any], str]:
  """Returns the autoencoder that diffusion works in, written if it is missing.

  Args:
    options: `config.autoencoder`.
    directory: `<workdir>/autoencoder`.
    key: see `adopt`.
    clips: returns training clips, for the statistics.
    mesh: to copy it to every device of.

  Returns:
    ({'params', 'stats'}, fingerprint).
  """
  if not exists(directory):
    adopt(options, directory, key, clips())
  return load(directory, mesh)


def abstract(options: ConfigDict) -> dict[str, Any]:
  """Returns the shapes and dtypes of what `ensure` returns.

  Args:
    options: `config.autoencoder`, see `resolve`; with `load` or `weights` of a
      published network, its files are read. Where the file of autoencoder_kl is
      yet to be downloaded, its sizes are those of Stable Diffusion's.
  """
  codec = autoencoders.make_autoencoder(options)
  if codec.abstract_params is not None:
    params = codec.abstract_params()
    params.pop(discriminator.NAME, None)
  elif options.load:
    params = trained.load_autoencoder(options.load)[1]
  elif options.kind == 'autoencoder_kl' and _missing(options.weights):
    params = autoencoder_kl.abstract_published(options.channels)
  else:
    params, _ = pretrained.load(options)
  params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
  )
  leaf = jax.ShapeDtypeStruct((codec.channels,), np.float32)
  return {'params': params, 'stats': {'mean': leaf, 'scale': leaf}}


def _missing(weights):
  return not weights.startswith('hf://') and not epath.Path(weights).exists()


def load(
  directory: epath.Path, mesh: jax.sharding.Mesh
) -> tuple[dict[str, Any], str]:
  """Returns the run's autoencoder, copied to every device; see `ensure`."""
  with errors.as_usage():
    _, params, stats, fingerprint = files.load(directory)
  logging.info('Autoencoder %s, %s.', directory, fingerprint[:12])
  frozen = arrays.replicate(mesh, {'params': params, 'stats': stats})
  return frozen, fingerprint


def _publish(directory, options, params, stats):
  """Writes the files on the first process; all return when they are there."""
  if coordination.is_first():
    files.save(directory, options, params, stats)
  coordination.gather('writing the autoencoder')
