"""A frozen autoencoder on disk: `weights.npz` and `config.json`.

The weights are float32 arrays under '/'-joined paths, without pickle. The
configuration holds the settings that rebuild the network, the statistics of
its latents, the sha256 of the weights, and the fingerprint: a sha256 over all
of these, by which runs and latent caches know the autoencoder. The
configuration is written last and marks the autoencoder as complete.
"""

import hashlib
import io
import json

from etils import epath
import jax
import ml_collections
import numpy as np

WEIGHTS, CONFIG = 'weights.npz', 'config.json'


def save(directory, config, params, stats) -> str:
  """Writes an autoencoder, once, and returns its fingerprint.

  Args:
    directory: where to; made if it does not exist.
    config: `config.autoencoder`, of which all but where it came from is kept.
    params: nested dict of float32 arrays.
    stats: {'mean': [c], 'scale': [c]}, see `latents.statistics`.

  Raises:
    FileExistsError: the directory holds another autoencoder.
  """
  directory = epath.Path(directory)
  weights = _pack(params)
  origin = ('load', 'weights')
  settings = {k: v for k, v in dict(config).items() if k not in origin}
  content = {
    'settings': settings,
    'statistics': {k: np.asarray(v).tolist() for k, v in stats.items()},
    'sha256': hashlib.sha256(weights).hexdigest(),
  }
  content['fingerprint'] = fingerprint(content)
  if exists(directory):
    found = json.loads((directory / CONFIG).read_text())['fingerprint']
    if found != content['fingerprint']:
      raise FileExistsError(
        f'{directory} already holds another autoencoder '
        f'({found[:12]}): choose a new --workdir.'
      )
    return found
  directory.mkdir(parents=True, exist_ok=True)
  text = json.dumps(content, indent=2, sort_keys=True) + '\n'
  for name, data in ((WEIGHTS, weights), (CONFIG, text.encode())):
    unfinished = directory / (name + '.tmp')
    unfinished.write_bytes(data)
    unfinished.rename(directory / name)
  return content['fingerprint']


def load(directory):
  """Reads an autoencoder and verifies it.

  Returns:
    (config, params, stats, fingerprint): a ConfigDict that `make_autoencoder`
    takes, a nested dict of numpy arrays, the latents' statistics, a string.

  Raises:
    FileNotFoundError: there is no autoencoder.
    ValueError: its files are not what was written.
  """
  directory = epath.Path(directory)
  if not exists(directory):
    raise FileNotFoundError(
      f'No autoencoder in {directory}: name the workdir of a run that has '
      'finished its autoencoder stage.'
    )
  content = json.loads((directory / CONFIG).read_text())
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
  stats = {
    k: np.asarray(v, np.float32) for k, v in content['statistics'].items()
  }
  # JSON has no tuples, and a configuration no lists.
  config = ml_collections.ConfigDict(
    {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in content['settings'].items()
    }
  )
  return config, _unpack(weights), stats, content['fingerprint']


def exists(directory) -> bool:
  """Whether a complete autoencoder was written there."""
  return (epath.Path(directory) / CONFIG).exists()


def fingerprint(content) -> str:
  """sha256 of settings, statistics and the weights' sha256, hexadecimal."""
  known = {k: content.get(k) for k in ('settings', 'statistics', 'sha256')}
  return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _pack(params) -> bytes:
  arrays = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = '/'.join(entry.key for entry in path)
    array = np.asarray(leaf)
    if array.dtype != np.float32:
      raise ValueError(
        f'The autoencoder is stored in float32, but {name} is {array.dtype}.'
      )
    arrays[name] = array
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


def nested(flat):
  """{'/'-joined path: array} -> nested dict."""
  tree = {}
  for path, leaf in flat.items():
    *parents, last = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def _unpack(data: bytes) -> dict:
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    return nested(dict(arrays))
