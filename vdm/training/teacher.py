"""The teacher of a consistency stage: a frozen average, in the run's folder.

`teacher/weights.safetensors` holds the parameters and `teacher.json`, which is
written last, where they come from and their sha256. The stage begins with these
parameters and is resumed with them, whatever the run still keeps of the stage
before it.
"""

import hashlib
import json
from typing import Any

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm import trained
from vdm.common import errors
from vdm.common import files
from vdm.common import trees
from vdm.models import import_weights
from vdm.models import safetensors
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.training import objective

FOLDER, WEIGHTS, FACTS = 'teacher', 'weights.safetensors', 'teacher.json'


def write(
  workdir: epath.Path, params: dict[str, Any], source: dict[str, Any]
) -> None:
  """Writes a teacher, in place of any that is there.

  Args:
    workdir: the run's folder.
    params: nested dict of arrays.
    source: where they come from, as JSON.
  """
  flat = {k: np.asarray(v) for k, v in trees.flatten(params).items()}
  if coordination.is_first():
    folder = workdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    data = safetensors.to_bytes(flat, {})
    files.write_bytes(folder / WEIGHTS, data)
    content = {**source, 'sha256': hashlib.sha256(data).hexdigest()}
    files.write_json(folder / FACTS, content)
  coordination.gather('writing the teacher')


def load(
  workdir: epath.Path, made: objective.Objective, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
  """Returns the parameters of the run's teacher, on every device.

  Args:
    workdir: the run's folder.
    made: the stage's objective, whose network it is.
    mesh: of the devices.

  Raises:
    UsageError: it is missing, or not what was written.
  """
  folder = workdir / FOLDER
  try:
    content = json.loads((folder / FACTS).read_text())
    data = (folder / WEIGHTS).read_bytes()
    written = content['sha256']
  except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
    raise errors.UsageError(
      f'{folder} is missing or damaged, and the consistency stage needs the '
      'teacher in it: restore it from a copy, or train in a new --workdir.'
    ) from error
  if hashlib.sha256(data).hexdigest() != written:
    raise errors.UsageError(
      f'{folder / WEIGHTS} is not what was written: restore it from a copy, or '
      'train in a new --workdir.'
    )
  with errors.as_usage():
    params = _match(folder / WEIGHTS, safetensors.parse(data), made)
  logging.info('Teacher %s, %s.', folder, written[:12])
  return arrays.replicate(mesh, params)


def from_source(
  config: ConfigDict, made: objective.Objective, autoencoder: str
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the parameters of the model that `train.init_from` names.

  Args:
    config: the run's.
    made: the stage's objective, whose network it must be.
    autoencoder: fingerprint of the run's autoencoder.

  Returns:
    (params, source), see `write`.

  Raises:
    UsageError: it is of another network, prediction or autoencoder.
  """
  name = config.train.init_from
  with errors.as_usage('config.train.init_from: '):
    found = trained.load(name, autoguide='none')
    params = _match(name, trees.flatten(found.params), made)
  if found.stage.objective != 'diffusion':
    raise errors.UsageError(
      f'config.train.init_from: {name} is a consistency model already: name '
      'the diffusion model that it was made from.'
    )
  for key in ('prediction', 'sigma_data'):
    value = found.config.diffusion[key]
    if value != config.diffusion[key]:
      raise errors.UsageError(
        f'config.train.init_from: {name} was trained with another '
        f'{key}: set config.diffusion.{key}={value}.'
      )
  if found.fingerprint != autoencoder:
    raise errors.UsageError(
      f'config.train.init_from: {name} works in the latents of another '
      f'autoencoder: set config.autoencoder.load={name}.'
    )
  width = float(found.config.sample.ema)
  source = {'source': found.source, 'step': found.step, 'width': width}
  return params, source


def _match(source, flat, made):
  """Returns arrays as the parameters of the stage's network."""
  abstract = made.abstract_params()
  params = import_weights.match(source, flat, abstract)
  return jax.tree.map(lambda x, like: x.astype(like.dtype), params, abstract)
