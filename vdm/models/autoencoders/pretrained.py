"""Published autoencoders: from files of weights to parameters.

The shapes in the files determine the network; they must agree with the settings
of the run in `config.autoencoder`.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from vdm.common import trees
from vdm.models import import_weights
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import tiny

MODULES = {'tiny': tiny, 'autoencoder_kl': autoencoder_kl}


def load(config: ConfigDict) -> tuple[dict[str, Any], str]:
  """Reads the weights that `config.autoencoder` names.

  Args:
    config: `kind`, `factor` and `channels` of the network; `weights`, its
      files, joined by commas, see `import_weights.read`; `weights_sha256`,
      their hashes in the same order, or '' to accept any.

  Returns:
    (params, sha256): a nested dict of float32 arrays, and the files' hashes
    in the format of `weights_sha256`.

  Raises:
    WeightsError: a file cannot be read, is not the expected one, or is of
      another network.
  """
  module = MODULES[config.kind]
  files = import_weights.read_files(config.weights, config.weights_sha256)
  flat = {}
  for file in files:
    part = module.convert(file.tensors)
    if flat.keys() & part.keys():
      raise import_weights.WeightsError(
        f'{config.weights} holds the same side of the autoencoder twice: give '
        'one encoder and one decoder.'
      )
    flat |= part
  params = match(config.weights, flat, module.abstract_params)
  _check(config, 'channels', module.channels(params))
  _check(config, 'factor', module.factor(params))
  return params, ','.join(file.sha256 for file in files)


def match(
  source: str,
  flat: dict[str, np.ndarray],
  abstract_params: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
  """Checks that arrays are exactly the parameters of an autoencoder.

  Args:
    source: named in the errors.
    flat: {'/'-joined path: array}.
    abstract_params: parameters -> the shapes of those of the network of their
      sizes.

  Returns:
    The parameters as a nested dict of float32 arrays.

  Raises:
    WeightsError: a side or a parameter is missing, unknown or of another shape.
  """
  params = trees.unflatten(flat)
  for side in ('encoder', 'decoder'):
    if side not in params:
      raise import_weights.WeightsError(
        f'{source} has no {side}: give the files of both sides, joined by a '
        'comma.'
      )
  try:
    abstract = abstract_params(params)
  except KeyError as error:
    raise import_weights.WeightsError(
      f'{source} is of another network: there is no {error.args[0]}.'
    ) from None
  return import_weights.match(source, flat, abstract)


def _check(config, key, value):
  if config[key] != value:
    raise import_weights.WeightsError(
      f'{config.weights} is a network of {key}={value}: set '
      f'config.autoencoder.{key} to that, not to {config[key]}.'
    )
