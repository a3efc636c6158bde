"""Published autoencoders: from files of weights to parameters.

The network follows from the shapes in the files; `config.autoencoder` says
what the run was planned with, and both must agree.
"""

from flax import traverse_util

from vdm.models import import_weights
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import tiny

MODULES = {'tiny': tiny, 'autoencoder_kl': autoencoder_kl}


def load(config):
  """Reads the weights that `config.autoencoder` names.

  Args:
    config: `kind`, `factor` and `channels` of the network; `weights`, its
      files, joined by commas, see `import_weights.read`; `weights_sha256`,
      theirs in the same order, or '' to take what is there.

  Returns:
    (params, sha256): a nested dict of float32 arrays, and the files' hashes
    as `weights_sha256` takes them.

  Raises:
    WeightsError: the files are not whole, not the ones that are expected, or
      of another network.
  """
  module = MODULES[config.kind]
  sources = [source.strip() for source in config.weights.split(',')]
  hashes = [sha256.strip() for sha256 in config.weights_sha256.split(',')]
  if hashes == ['']:
    hashes *= len(sources)
  flat, found = {}, []
  for source, sha256 in zip(sources, hashes, strict=True):
    weights = import_weights.read(source, sha256)
    part = module.convert(weights.tensors)
    if flat.keys() & part.keys():
      raise import_weights.WeightsError(
        f'{source} holds the same side of the autoencoder as the file before '
        'it: give one encoder and one decoder.'
      )
    flat |= part
    found.append(weights.sha256)
  params = match(config.weights, flat, module.abstract)
  _agree(config, 'channels', module.channels(params))
  _agree(config, 'factor', module.factor(params))
  return params, ','.join(found)


def match(source, flat, abstract):
  """Checks that parameters are all of an autoencoder's, and no more.

  Args:
    source: named in the errors.
    flat: {'/'-joined path: array}.
    abstract: nested parameters -> the same of the network of their sizes, as
      shapes.

  Returns:
    The parameters as a nested dict of float32 arrays.
  """
  params = traverse_util.unflatten_dict(flat, sep='/')
  for side in ('encoder', 'decoder'):
    if side not in params:
      raise import_weights.WeightsError(
        f'{source} has no {side}: give the files of both sides, joined by a '
        'comma.'
      )
  try:
    wanted = abstract(params)
  except KeyError as error:
    raise import_weights.WeightsError(
      f'{source} is of another network: there is no {error.args[0]}.'
    ) from None
  return import_weights.match(source, flat, wanted)


def _agree(config, key, value):
  if config[key] != value:
    raise import_weights.WeightsError(
      f'{config.weights} is a network of {key}={value}: set '
      f'config.autoencoder.{key} to that, not to {config[key]}.'
    )
