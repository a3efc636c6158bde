"""A frozen autoencoder on disk: `weights.npz` and `config.json`.

The weights are float32 arrays under '/'-joined paths, without pickle. The
configuration has the settings that rebuild the network, the statistics of its
latents, the sha256 of the weights, and the fingerprint: a sha256 over all of
these, by which runs and latent caches identify the autoencoder. The
configuration is written last and marks the autoencoder as complete.
"""

from collections.abc import Mapping
import hashlib
import io
import json
from typing import Any

from etils import epath
from etils.array_types import FloatArray
from ml_collections import ConfigDict
import numpy as np

from vdm.common import files
from vdm.common import trees
from vdm.models import pickles

WEIGHTS, CONFIG = 'weights.npz', 'config.json'


def save(
  directory: epath.PathLike,
  config: ConfigDict,
  params: dict[str, Any],
  stats: dict[str, FloatArray[' c']],
) -> str:
  """Writes an autoencoder, once, and returns its fingerprint.

  Args:
    directory: created if it does not exist.
    config: `config.autoencoder`; all of it is saved but the source of the
      parameters (`load`, `weights`).
    params: nested dict of float32 arrays.
    stats: {'mean', 'scale'}, see `latents.statistics`.

  Raises:
    FileExistsError: the directory has another autoencoder.
  """
  directory = epath.Path(directory)
  weights = files.npz_bytes(_flat(params))
  settings = {k: v for k, v in config.items() if k not in ('load', 'weights')}
  if not settings.get('norm_groups'):
    # Of a network without; their fingerprints are older than the key.
    settings.pop('norm_groups', None)
  content = {
    'settings': settings,
    'statistics': {k: np.asarray(v).tolist() for k, v in stats.items()},
    'sha256': hashlib.sha256(weights).hexdigest(),
  }
  content['fingerprint'] = fingerprint(content)
  if exists(directory):
    found = _read_config(directory / CONFIG).get('fingerprint')
    if found != content['fingerprint']:
      raise FileExistsError(
        f'{directory} already holds another autoencoder '
        f'({str(found)[:12]}): choose a new --workdir.'
      )
    return found
  directory.mkdir(parents=True, exist_ok=True)
  files.write_bytes(directory / WEIGHTS, weights)
  files.write_json(directory / CONFIG, content, sort_keys=True)
  return content['fingerprint']


def load(
  directory: epath.PathLike,
) -> tuple[ConfigDict, dict[str, Any], dict[str, FloatArray[' c']], str]:
  """Reads and verifies an autoencoder.

  Returns:
    (config, params, stats, fingerprint): what `make_autoencoder` takes, a
    nested dict of NumPy arrays, the statistics of latents, a hexadecimal hash.

  Raises:
    FileNotFoundError: there is no autoencoder.
    ValueError: the files were changed after they were written.
  """
  directory = epath.Path(directory)
  if not exists(directory):
    raise FileNotFoundError(
      f'No autoencoder in {directory}: name the workdir of a run that has '
      'finished its autoencoder stage.'
    )
  content = _read_config(directory / CONFIG)
  weights = (directory / WEIGHTS).read_bytes()
  sha256 = hashlib.sha256(weights).hexdigest()
  if sha256 != content.get('sha256'):
    raise ValueError(
      f'{directory / WEIGHTS} is not what was written (its sha256 is '
      f'{sha256[:12]}, not {str(content.get("sha256"))[:12]}): copy the '
      'autoencoder again or retrain it.'
    )
  if fingerprint(content) != content.get('fingerprint'):
    raise ValueError(
      f'{directory / CONFIG} was changed after it was written: copy the '
      'autoencoder again or retrain it.'
    )
  with np.load(io.BytesIO(weights), allow_pickle=False) as arrays:
    params = trees.unflatten(arrays)
    tensors = len(arrays.files)
  try:
    config, stats = decode(content, tensors)
  except ValueError as error:
    raise ValueError(
      f'{directory / CONFIG} is refused: {error}; copy the autoencoder again '
      'or retrain it.'
    ) from error
  return config, params, stats, content['fingerprint']


def decode(
  content: Mapping[str, Any], tensors: int
) -> tuple[ConfigDict, dict[str, FloatArray[' c']]]:
  """Returns the settings and statistics that a `config.json` holds.

  Args:
    content: of it, its parts of the types they should have.
    tensors: number of them among the parameters.

  Returns:
    (config, stats): what `make_autoencoder` takes, the statistics of latents.

  Raises:
    FormatError: the settings are of a larger network than the parameters, or
      the statistics are no finite numbers and positive scales in float32.
  """
  # JSON has no tuples, and a configuration no lists.
  config = ConfigDict(
    {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in content['settings'].items()
    }
  )
  check_blocks(config, tensors)
  with np.errstate(over='ignore'):
    stats = {
      name: np.asarray(values, np.float32)
      for name, values in content['statistics'].items()
    }
  for name, values in stats.items():
    if not np.isfinite(values).all() or (
      name == 'scale' and (values <= 0).any()
    ):
      raise pickles.FormatError(
        f'in float32 the {name} of its latents is out of range'
      )
  return config, stats


def check_blocks(config: ConfigDict, tensors: int) -> None:
  """Checks that parameters can be of an autoencoder, before it is made.

  Each block has at least one tensor, and thousands take minutes to make.

  Args:
    config: `config.autoencoder`.
    tensors: number of them among the parameters.

  Raises:
    FormatError: it has more blocks than there are tensors.
  """
  if config.kind != 'kl':  # Other kinds have no blocks of a number of theirs.
    return
  blocks = config.encoder_blocks + config.decoder_blocks
  if blocks > tensors:
    raise pickles.FormatError(
      f'its settings ask for {blocks} blocks, and it has {tensors} tensors'
    )


def _read_config(path: epath.Path) -> dict[str, Any]:
  """Returns what `config.json` holds, its parts of the types they should have.

  Raises:
    ValueError: it is not the file of an autoencoder.
  """
  try:
    content = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{path} is not valid JSON ({error}): copy the autoencoder again or '
      'retrain it.'
    ) from error
  parts = ('settings', 'statistics')
  if not isinstance(content, dict) or not all(
    isinstance(content.get(name), dict) for name in parts
  ):
    raise ValueError(
      f'{path} is not the config.json of an autoencoder: copy the autoencoder '
      'again or retrain it.'
    )
  return content


def exists(directory: epath.PathLike) -> bool:
  """Returns whether the directory has a complete autoencoder."""
  return (epath.Path(directory) / CONFIG).exists()


def fingerprint(content: Mapping[str, Any]) -> str:
  """Returns the sha256 of settings, statistics and the weights' sha256."""
  known = {k: content.get(k) for k in ('settings', 'statistics', 'sha256')}
  return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _flat(params):
  """Returns {path: float32 array}; refuses other dtypes."""
  arrays = {k: np.asarray(v) for k, v in trees.flatten(params).items()}
  for name, array in arrays.items():
    if array.dtype != np.float32:
      raise ValueError(
        f'The autoencoder is stored in float32, but {name} is {array.dtype}.'
      )
  return arrays
