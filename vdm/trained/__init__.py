"""Trained models, read from where they are kept.

A source is the folder of a run, local or in a bucket (gs://); the folder of an
export (`export_folder`); or an export on the Hugging Face hub. `load` takes any
of them. Nothing here imports TensorFlow, clu, tfds or grain, and nothing that
is read can run code.
"""

import os
import re
from typing import Any

from etils import epath
from etils.array_types import FloatArray
from ml_collections import ConfigDict

from vdm.common import buckets
from vdm.common import hub
from vdm.common import sizes
from vdm.config import sampling
from vdm.models.autoencoders import files
from vdm.trained import export_folder
from vdm.trained import hub_exports
from vdm.trained import image_models
from vdm.trained import model
from vdm.trained import run_folder
from vdm.trained import words

Model = model.Model
mapped = model.mapped
is_export = export_folder.exists


def load(
  source: epath.PathLike,
  ema: float | None = None,
  checkpoint: str = 'latest',
  image_model: str = '',
  autoguide: str | None = None,
) -> model.Model:
  """Reads a trained model, with what it is guided against.

  Args:
    source: of a run or an export, see above.
    ema: width of the average to take; by default `config.sample.ema`. An
      export has one.
    checkpoint: 'latest'; 'best', the one with the lowest small score; or a
      step. An export has one.
    image_model: file of a published image model to put the branches on, see
      `image_models`; '': the model's own.
    autoguide: what it is guided against: a step of the run, another run or
      export, or 'none'; None: what its configuration says.

  Raises:
    FileNotFoundError: there is no run, no diffusion model in it yet, or no
      such checkpoint.
    ValueError: there is no such average, the export is not what was written,
      the image model does not fit, or it cannot be guided so.
  """
  found = image_models.complete(
    load_trained(source, ema, checkpoint, guided=autoguide is None), image_model
  )
  return found if autoguide is None else against(found, autoguide)


def load_trained(
  source: epath.PathLike,
  ema: float | None = None,
  checkpoint: str = 'latest',
  guided: bool = True,
) -> model.Model:
  """Reads a trained model, of an export of branches without its image model.

  See `load`; `guided` is whether with what its configuration guides against.
  """
  if (export := _open(source)) is not None:
    return export_folder.read(export, ema, checkpoint, guided)
  return run_folder.read(source, ema, checkpoint, guided)


def against(found: model.Model, autoguide: str) -> model.Model:
  """Returns a model that is guided against something else than by default.

  Args:
    found: the model.
    autoguide: see `load`.
  """
  config = sampling.without_autoguide(found.config)
  worse = None if autoguide == 'none' else load_worse(found, autoguide)
  return found._replace(config=config, worse=worse)


def load_worse(run: model.Model, name: str) -> model.Model:
  """Reads a model to guide another one against (autoguidance).

  Args:
    run: the model that is guided.
    name: a step of the same run, or the source of another run or export.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it works in other latents or on other clips, or has other
      classes or words.
  """
  if name.isdigit():
    if run.workdir is None:
      raise ValueError(
        f'{run.source} is an export and has one step: name the run or export '
        'to guide against.'
      )
    worse = load(run.workdir, checkpoint=name, autoguide='none')
  else:
    worse = load(name, autoguide='none')
  clips = [(x.stage.frames, sizes.of(x.stage)) for x in (run, worse)]
  if clips[0] != clips[1]:
    shown = [f'{t} frames of {sizes.text(size)} px' for t, size in clips]
    raise ValueError(
      f'{worse.source} cannot guide: at step {worse.step} it makes {shown[1]}, '
      f'and {run.source} makes {shown[0]}.'
    )
  if worse.fingerprint != run.fingerprint:
    raise ValueError(
      f'{worse.source} cannot guide: its autoencoder is not that of '
      f'{run.source}, so its latents mean something else; train it with '
      f'config.autoencoder.load={run.source}.'
    )
  factors = [
    (x.config.model.low.space_factor, x.config.model.low.time_factor)
    for x in (run, worse)
  ]
  if factors[0] != factors[1]:
    raise ValueError(
      f'{worse.source} cannot guide: it is not told the smaller video of which '
      f'{run.source} makes a larger one, or another one.'
      if factors[0] != (1, 1)
      else f'{worse.source} cannot guide: it enlarges smaller videos, and '
      f'{run.source} is told none.'
    )
  classes = [x.config.model.num_classes for x in (run, worse)]
  if classes[1] not in (0, classes[0]):
    raise ValueError(
      f'{worse.source} cannot guide: it knows {classes[1]} classes, and '
      f'{run.source} {classes[0]}.'
    )
  if worse.reader is not None and worse.reader != run.reader:
    raise ValueError(
      f'{worse.source} cannot guide: it reads captions in another way than '
      f'{run.source}; train it with config.train.init_from={run.source}.'
    )
  return worse


def load_autoencoder(
  source: epath.PathLike,
) -> tuple[ConfigDict, dict[str, Any], dict[str, FloatArray[' c']], str]:
  """Reads the frozen autoencoder of a run or an export.

  Returns:
    (config, params, stats, fingerprint), see `autoencoders.files.load`.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is not what was written.
  """
  if (export := _open(source)) is not None:
    return export_folder.read_autoencoder(export)
  return files.load(epath.Path(source) / 'autoencoder')


def load_vocabulary(source: epath.PathLike) -> tuple[str, ...]:
  """Returns the words that a run or an export has learned; () if none.

  Raises:
    FileNotFoundError: there is no run or export.
    ValueError: it is not what was written.
  """
  # Opened once: on the hub a branch may move meanwhile.
  if (export := _open(source)) is not None:
    config = export_folder.read_config(export)
    read = export_folder.text_files(export)
  else:
    config = run_folder.read_config(epath.Path(source))
    read = words.in_run(epath.Path(source))
  text = config.model.text
  return words.words(text, read) if text.encoder == 'learned' else ()


def load_config(source: epath.PathLike) -> ConfigDict:
  """Returns the configuration of a run or an export.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is not what was written.
  """
  if (export := _open(source)) is not None:
    return export_folder.read_config(export)
  return run_folder.read_config(epath.Path(source))


def load_facts(source: epath.PathLike) -> dict[str, Any]:
  """Returns what an export says of the run that it was made of.

  Raises:
    ValueError: the source is no export, or not what was written.
  """
  if (export := _open(source)) is None:
    raise ValueError(f'{source} is no export.')
  return export.content['run']


def output_folder(source: epath.PathLike) -> epath.Path:
  """Returns where files about a model go by default.

  In a run that is its own folder. What was published stays as it is: of an
  export it is outputs/<its name>, under the current directory.
  """
  source = os.fspath(source)
  if hub.is_on_hub(source):
    repo, _ = hub.split(source)
    return epath.Path('outputs') / repo.replace('/', '-')
  buckets.given(source)
  if export_folder.exists(source):
    name = os.path.basename(os.path.abspath(source))
    return epath.Path('outputs') / (re.sub(r'[^\w.-]', '_', name) or 'export')
  return epath.Path(source)


def _open(source: epath.PathLike) -> export_folder.Export | None:
  """Opens an export; returns None where a source is not one."""
  if hub.is_on_hub(source := os.fspath(source)):
    return export_folder.open_folder(*hub_exports.download(source))
  buckets.given(source)
  if export_folder.exists(source):
    return export_folder.open_folder(source)
  return None
