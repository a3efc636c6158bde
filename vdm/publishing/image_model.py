"""Writes the image model of a run as published ones are.

What reads such files reads these: `config.model.weights` of another run, and
the code that the names come from. Stable Diffusion's family has the layout of
diffusers' pipelines:

  unet/config.json                                of the network
  unet/diffusion_pytorch_model.safetensors        its weights
  scheduler/scheduler_config.json                 timesteps and outputs

of ADM `config.json`, its flags by name, beside `model.safetensors`.
"""

import json

from absl import logging
from etils import epath
import jax.numpy as jnp
import numpy as np

from vdm import trained
from vdm.common import buckets
from vdm.common import errors
from vdm.common import files
from vdm.common import trees
from vdm.config import image_model_rules
from vdm.models import safetensors
from vdm.models.image_unets import adapters
from vdm.models.image_unets import conditional
from vdm.models.image_unets import description
from vdm.models.image_unets import inflated
from vdm.models.image_unets import names

# Names of a class of diffusers that reads what is written.
UNET, SCHEDULER = 'UNet2DConditionModel', 'DDIMScheduler'


def write(
  workdir: epath.PathLike,
  out: epath.PathLike,
  *,
  checkpoint: str = 'latest',
  ema: float | None = None,
  dtype: str = 'float32',
  overwrite: bool = False,
) -> list[str]:
  """Writes the files and returns their names.

  Adapters are merged into the matrices that they adapt. Temporal branches, and
  the tokens of an empty prompt, are no part of an image model.

  Args:
    workdir: of a run, or what else `trained` reads.
    out: folder to write to.
    checkpoint: latest, best or a step.
    ema: width of the average; None for the run's.
    dtype: of the weights in the file.
    overwrite: replace files that are there.

  Raises:
    FileNotFoundError: there is no run, or no such checkpoint.
    FileExistsError: there is such a model in the folder already.
    UsageError: the run has no published image model.
  """
  out = buckets.given(out, '--out')
  model = trained.load(workdir, ema, checkpoint)
  options, params = model.config.model, model.params
  if not image_model_rules.is_published(options):
    raise errors.UsageError(
      f'{model.source} has no image model that is published in such files, '
      f'but kind={options.kind}: leave --image out.'
    )
  if options.adapter_rank:
    params = adapters.merge(params, options.adapter_alpha)
  content = description.from_text(options.architecture)
  layers = names.table(inflated.parse(options.kind, options.architecture))
  if options.kind == 'conditional':
    scheme, weights = 'diffusers', 'unet/diffusion_pytorch_model.safetensors'
    texts = _of_pipeline(content)
  else:
    # The network's outputs have no variance any more.
    scheme, weights = 'original', 'model.safetensors'
    texts = {'config.json': content | {'learn_sigma': False}}
  flat = trees.flatten(params[inflated.GROUP])
  tensors = names.to_published(
    layers, scheme, {k: np.asarray(x, np.float32) for k, x in flat.items()}
  )
  tensors = {k: x.astype(jnp.dtype(dtype)) for k, x in tensors.items()}
  if _is_ours(out / 'config.json'):
    raise FileExistsError(
      f'{out} holds a run or an export: give another --out.'
    )
  found = [x for x in (weights, *texts) if (out / x).exists()]
  if found and not overwrite:
    raise FileExistsError(
      f'{out / found[0]} is there already: give --overwrite, or another --out.'
    )
  for name, text in texts.items():
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    files.write_json(out / name, text)
  # As the library writes it, without which other readers refuse the file.
  data = safetensors.to_bytes(tensors, {'format': 'pt'})
  files.write_bytes(out / weights, data)
  logging.info(
    'The image model is in %s, %.2f MB: set config.model.weights to it.',
    out / weights,
    len(data) / 1e6,
  )
  return [weights, *texts]


def _is_ours(path: epath.Path) -> bool:
  """Returns whether there is a config.json of a run or an export."""
  try:
    content = json.loads(path.read_text())
  except (FileNotFoundError, ValueError):
    return False
  return isinstance(content, dict) and not content.keys().isdisjoint(
    {'hash', 'sha256'}
  )


def _of_pipeline(content: dict) -> dict[str, dict]:
  """Returns {name: content} of both descriptions of a pipeline."""
  network = {k: v for k, v in content.items() if k not in conditional.SCHEDULER}
  # All of it: diffusers has other defaults.
  scheduler = {
    name: content.get(name, conditional.DEFAULTS[name])
    for name in conditional.SCHEDULER
  }
  return {
    'unet/config.json': {'_class_name': UNET} | network,
    'scheduler/scheduler_config.json': {'_class_name': SCHEDULER} | scheduler,
  }
