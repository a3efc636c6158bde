"""Published autoencoders: from files of weights to parameters.

The shapes in the files determine the network, except for what only the
`config.json` beside them says (`resolve`). All of it must agree: the shapes,
that file and the settings of the run in `config.autoencoder`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from vdm.common import trees
from vdm.models import import_weights
from vdm.models.autoencoders import autoencoder_kl
from vdm.models.autoencoders import tiny

MODULES = {'tiny': tiny, 'autoencoder_kl': autoencoder_kl}
# Settings of autoencoder_kl that shapes do not determine, and the values that
# stand for what config.json says.
HIDDEN = {'norm_groups': 0, 'scaling_factor': 1.0, 'shift_factor': 0.0}
MAX_FACTOR = 1e6


def resolve(config: ConfigDict) -> ConfigDict:
  """Fills in what only the `config.json` beside the weights says.

  Args:
    config: `config.autoencoder`; a setting that is left at its default is
      taken from the file.

  Returns:
    A copy with the settings HIDDEN.

  Raises:
    WeightsError: the file is invalid, the configuration differs from it, or
      there is none and the number of groups is not given.
  """
  config = config.copy_and_resolve_references()
  if config.kind != 'autoencoder_kl':
    return config
  for path, content in _descriptions(config):
    fill(config, _hidden(path, content), path)
  if not config.norm_groups:
    raise import_weights.WeightsError(
      f'There is no config.json beside {config.weights}, and weights do not '
      'say how many groups the norms have: set config.autoencoder.norm_groups '
      '(32 in SD, SDXL, SD3 and FLUX.1).'
    )
  return config


def fill(config: ConfigDict, known: dict[str, Any], source: str) -> None:
  """Sets the settings HIDDEN that are at their defaults, in place.

  Args:
    config: `config.autoencoder`.
    known: the network's settings.
    source: where they are from, for the error.

  Raises:
    WeightsError: the configuration has another value.
  """
  for name, unset in HIDDEN.items():
    if config[name] == unset:
      config[name] = known.get(name, unset)
    elif config[name] != known.get(name, config[name]):
      raise import_weights.WeightsError(
        f'{source} has {name}={known[name]!r}: set config.autoencoder.{name} '
        f'to that, not to {config[name]!r}.'
      )


def load(config: ConfigDict) -> tuple[dict[str, Any], str]:
  """Reads the weights that `config.autoencoder` names.

  Args:
    config: `kind`, `factor` and `channels` of the network; `weights`, its
      files, joined by commas, see `import_weights.read`; `weights_sha256`,
      their hashes in the same order, or '' to accept any; `norm_groups` of
      autoencoder_kl, see `resolve`.

  Returns:
    (params, sha256): a nested dict of float32 arrays, and the files' hashes
    in the format of `weights_sha256`.

  Raises:
    WeightsError: a file cannot be read, is not the expected one, or is of
      another network.
  """
  config = resolve(config)
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
  _check(config, module, params)
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


def _check(config, module, params):
  """Raises a WeightsError at the first setting that the weights contradict."""
  for key in ('channels', 'factor'):
    ends = {side: getattr(module, key)(params, side) for side in params}
    value = ends['decoder']
    if ends['encoder'] != value:
      raise import_weights.WeightsError(
        f'{config.weights} are sides of different networks: {key} is '
        f'{ends["encoder"]} in the encoder and {value} in the decoder.'
      )
    if config[key] != value:
      raise import_weights.WeightsError(
        f'{config.weights} is a network of {key}={value}: set '
        f'config.autoencoder.{key} to that, not to {config[key]}.'
      )
  found = module.describe(params)
  for path, content in _descriptions(config):
    for key in found:
      if content.get(key, found[key]) != found[key]:
        raise import_weights.WeightsError(
          f'{path} says {key}={str(content[key])[:80]}, and the weights beside '
          f'it are of a network with {found[key]}.'
        )
  if config.kind == 'autoencoder_kl':
    try:
      autoencoder_kl.check_groups(params, config.norm_groups)
    except ValueError as error:
      raise import_weights.WeightsError(
        f'config.autoencoder.norm_groups is not that of {config.weights}: '
        f'{error}.'
      ) from None


def _descriptions(config) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (path, content) of the config.json beside each file of weights."""
  for source in map(str.strip, config.weights.split(',')):
    content = import_weights.read_config(source)
    # Without the name of a class it describes something else.
    if content and '_class_name' in content:
      yield f'config.json beside {source}', content


def _hidden(path, content):
  """Returns {setting: value} of HIDDEN in a config.json, validated."""
  groups = content.get('norm_num_groups', autoencoder_kl.GROUPS)
  if type(groups) is not int or groups < 1:
    _invalid(path, 'norm_num_groups', groups)
  found = {'norm_groups': groups}
  for key in ('scaling_factor', 'shift_factor'):
    value = content.get(key)
    if value is None:
      continue
    # Not NaN either.
    if type(value) not in (int, float) or not abs(value) < MAX_FACTOR:
      _invalid(path, key, value)
    if key == 'scaling_factor' and value <= 0:
      _invalid(path, key, value)
    found[key] = float(value)
  return found


def _invalid(path, key, value):
  raise import_weights.WeightsError(
    f'{path} has an invalid {key}: {str(value)[:80]}.'
  )
