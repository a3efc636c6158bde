"""Writes the files of an export; `trained.export_folder` has the format.

Nothing of an export names the machine or the folders it was made in: of paths
in the configuration only the last part is kept.
"""

import hashlib
import os
import re
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm import trained
from vdm.common import files
from vdm.common import hub
from vdm.common import trees
from vdm.config import serialize
from vdm.models import safetensors
from vdm.models.autoencoders import files as autoencoder_files
from vdm.trained import manifest
from vdm.trained import words

# Keys of the configuration whose values are paths, or commas between paths.
PATHS = (
  'data.root',
  'data.source',
  'data.latents',
  'data.captions.manifest',
  'autoencoder.load',
  'autoencoder.weights',
  'model.weights',
  'data.texts',
  'train.init_from',
)
SAMPLES = 'samples'  # The folder of videos.


def rounded(model: trained.Model, dtype: str) -> trained.Model:
  """Returns a model as it is read from an export in `dtype`."""

  def as_read(x):
    return np.asarray(x).astype(jnp.dtype(dtype)).astype(np.float32)

  frozen = {
    **model.frozen,
    'params': jax.tree.map(as_read, model.frozen['params']),
  }
  model = trained.mapped(model, lambda x: jax.tree.map(as_read, x))
  return model._replace(frozen=frozen)


def write_parameters(
  folder: epath.Path, model: trained.Model, dtype: str
) -> None:
  """Writes the parameters of a model and its autoencoder, and of its words.

  Args:
    folder: of the export, which exists.
    model: the trained model.
    dtype: one of `manifest.DTYPES`.
  """
  written = {
    manifest.WEIGHTS: model.params,
    manifest.AUTOENCODER: model.frozen['params'],
  }
  if model.worse is not None:
    written[manifest.EARLIER] = model.worse.params
  for name, params in written.items():
    tensors = {
      path: np.asarray(x).astype(jnp.dtype(dtype))
      for path, x in trees.flatten(params).items()
    }
    data = safetensors.to_bytes(tensors, {'format': manifest.FORMAT})
    files.write_bytes(folder / name, data)
  if model.reader is not None:
    path = folder / words.name(model.config.model.text)
    words.write(path, words.content_of(model.reader))


def write_manifest(
  folder: epath.Path,
  model: trained.Model,
  settings: ConfigDict,
  dtype: str,
  run: dict[str, Any],
) -> None:
  """Writes `config.json`, which completes an export.

  Args:
    folder: of the export, with all other files.
    model: the trained model.
    settings: of its autoencoder.
    dtype: that its parameters were written in.
    run: where the model comes from, as JSON values.
  """
  content = {
    'model': serialize.to_content(
      without_paths(model.config), model.label_names
    ),
    'stage': next(
      name for name, x in model.config.stages.items() if x == model.stage
    ),
    'step': int(model.step),
    'ema': float(model.config.sample.ema),
    'dtype': dtype,
    'frame_rate': float(model.frame_rate),
    'autoencoder': describe_autoencoder(
      settings, model.frozen['params'], model.frozen['stats']
    ),
    'run': run,
    'files': {
      name: manifest.describe((folder / name).read_bytes())
      for name in written(folder)
      if name != manifest.CARD
    },
  }
  if model.worse is not None:
    content['earlier'] = {'step': int(model.worse.step)}
  if content['autoencoder']['fingerprint'] != model.fingerprint:
    logging.warning(
      'The autoencoder was written by another version of NumPy: in the export '
      'its fingerprint is a new one.'
    )
  files.write_json(
    folder / manifest.CONFIG, manifest.seal(content), allow_nan=False
  )


def describe_autoencoder(
  settings: ConfigDict,
  params: dict[str, Any],
  stats: dict[str, FloatArray[' c']],
) -> dict[str, Any]:
  """Returns what the `config.json` of a run's autoencoder says of it."""
  data = files.npz_bytes(trees.flatten(params))
  content = {
    'settings': settings.to_dict(),
    'statistics': {k: np.asarray(v).tolist() for k, v in stats.items()},
    'sha256': hashlib.sha256(data).hexdigest(),
  }
  return content | {'fingerprint': autoencoder_files.fingerprint(content)}


def without_paths(config: ConfigDict) -> ConfigDict:
  """Returns a copy with only the last parts of paths."""

  def last_part(path):
    if hub.is_on_hub(path):
      return path
    return path.rstrip('/\\').replace('\\', '/').rsplit('/', 1)[-1]

  values = serialize.flatten(config)
  for key in PATHS:
    values[key] = ','.join(map(last_part, values[key].split(',')))
  # A name on the hub comes with its revision, and stays; a folder, wherever it
  # was, is named anew by who reads the export, and known by its sha256.
  text = {key: values[f'model.text.{key}'] for key in ('name', 'revision')}
  if os.path.isabs(text['name']) or not text['revision']:
    values['model.text.name'] = last_part(text['name'])
  return serialize.unflatten(values)


def written(folder: epath.Path) -> list[str]:
  """Returns the names of the files of an export but `config.json`, sorted.

  Other files in the folder are not the export's.
  """
  known = (
    manifest.WEIGHTS,
    manifest.EARLIER,
    manifest.AUTOENCODER,
    manifest.CARD,
    words.VOCABULARY,
    words.ENCODER,
  )
  names = [name for name in known if (folder / name).exists()]
  if (folder / SAMPLES).exists():
    names += [
      f'{SAMPLES}/{path.name}'
      for path in (folder / SAMPLES).iterdir()
      if re.fullmatch(r'\w[\w.-]*\.(mp4|gif|png)', path.name, re.ASCII)
    ]
  return sorted(names)


def check_room(folder: epath.Path, overwrite: bool) -> None:
  """Checks that an export may be written to a folder.

  Args:
    folder: of the export.
    overwrite: an export that is there may be replaced.

  Raises:
    FileExistsError: there is an export that is not to be replaced, or a run.
  """
  config = folder / manifest.CONFIG
  if config.exists() and not trained.is_export(folder):
    raise FileExistsError(
      f"{folder} holds a {manifest.CONFIG} that is no export's: give another "
      '--out.'
    )
  if overwrite:
    return
  if config.exists():
    raise FileExistsError(
      f'{folder} already holds an export: give another --out, or --overwrite '
      'to replace it.'
    )
  if there := written(folder) if folder.exists() else []:
    names = ', '.join(there[:3]) + (' and others' if len(there) > 3 else '')
    raise FileExistsError(
      f'{folder} already holds {names}: give another --out, or --overwrite to '
      'replace them.'
    )


def make_partial(folder: epath.Path) -> epath.Path:
  """Makes the empty folder that an export is written to before it is whole."""
  part = folder.parent / f'.{folder.name}.partial'
  if part.exists():  # Of one that was interrupted.
    part.rmtree()
  part.mkdir(parents=True)
  return part


def replace(folder: epath.Path, part: epath.Path) -> list[str]:
  """Moves a whole export to its folder, in place of what `written` says.

  Args:
    folder: of the export.
    part: see `make_partial`; it goes.

  Returns:
    The names of the files but `config.json`.
  """
  folder.mkdir(parents=True, exist_ok=True)
  # Gone first and back last: without it the others are no export.
  (folder / manifest.CONFIG).unlink(missing_ok=True)
  for name in written(folder):
    (folder / name).unlink()
  names = written(part)
  (folder / SAMPLES).mkdir(exist_ok=True)
  for name in (*names, manifest.CONFIG):
    (part / name).rename(folder / name)
  part.rmtree()
  return names
