"""Reads an export: a trained model in files that nothing can run.

  config.json              what it is, and what every file must be: `manifest`
  model.safetensors        one average of the network's parameters
  earlier.safetensors      the one that it is guided against, if any
  autoencoder.safetensors  the frozen autoencoder's parameters
  vocabulary.json          how captions are read, or text_encoder.json: `words`
  README.md                the card, for people
  samples/                 videos, for people

Parameters are stored in float32 or bfloat16 under their '/'-joined paths and
used in float32. They must be exactly those of the networks that `config.json`
describes: an export of another version of a network is refused. Of a published
image model with branches, all parameters of the image model may be left out.
"""

from collections.abc import Callable, Iterator
import contextlib
import hashlib
import pathlib
import re
from typing import Any, NamedTuple

from etils import epath
from etils.array_types import FloatArray
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm import models
from vdm.common import errors
from vdm.common import files
from vdm.common import trees
from vdm.config import image_model_rules
from vdm.config import sampling
from vdm.config import schema
from vdm.config import serialize
from vdm.models import autoencoders
from vdm.models import import_weights
from vdm.models import pickles
from vdm.models import safetensors
from vdm.models.autoencoders import files as autoencoder_files
from vdm.models.image_unets import inflated
from vdm.trained import claims
from vdm.trained import manifest
from vdm.trained import model
from vdm.trained import words

exists = manifest.exists
IMAGE = re.compile(inflated.IMAGE)


class Export(NamedTuple):
  """An export whose `config.json` has been checked.

  Attributes:
    folder: of its files.
    within: the folder that links stay in; None: `folder`.
    source: named in errors and records.
    content: of its `config.json`.
  """

  folder: epath.Path
  within: pathlib.Path | None
  source: str
  content: dict[str, Any]


def open_folder(
  folder: epath.PathLike,
  within: pathlib.Path | None = None,
  source: str = '',
) -> Export:
  """Reads and checks the `config.json` of an export.

  Raises:
    RefusedExport: it is not one that was written.
  """
  source = source or str(folder)
  content = manifest.load(folder, within, source)
  return Export(epath.Path(folder), within, source, content)


def read(
  export: Export,
  ema: float | None = None,
  checkpoint: str = 'latest',
  guided: bool = True,
) -> model.Model:
  """Reads the model of an export, with what it is guided against or without.

  Raises:
    FileNotFoundError: `checkpoint` is another one than the export's.
    ValueError: `ema` is another one than the export's.
    RefusedExport: a file is not what was written, or of another network.
  """
  content = export.content
  if checkpoint not in ('latest', str(content['step'])):
    raise FileNotFoundError(
      f'{export.source} is an export of step {content["step"]}: it has no '
      f'checkpoint {checkpoint}.'
    )
  if ema is not None and f'{ema:.3f}' != f'{content["ema"]:.3f}':
    raise ValueError(
      f'{export.source} is an export of the average of width '
      f'{content["ema"]:.3f}: it has none of {ema:.3f}.'
    )
  config = read_config(export)
  stage = config.stages.get(content['stage'])
  if stage is None or stage.objective == 'autoencoder':
    manifest.refuse(export.source, 'its stage is none of its configuration')
  _, frozen_params, stats, fingerprint = read_autoencoder(export)
  frozen = {'params': frozen_params, 'stats': stats}
  with _explained(export, manifest.AUTOENCODER):
    tensors = len(trees.flatten(frozen_params))
    autoencoder_files.check_blocks(config.autoencoder, tensors)
  if not guided:
    config = sampling.without_autoguide(config)
  codec, params = _read_network(export, config, manifest.WEIGHTS)
  with _explained(export, manifest.AUTOENCODER):
    claims.check_autoencoder(codec, frozen, stage)
  found = model.Model(
    config=config,
    stage=stage,
    step=content['step'],
    params=params,
    frozen=frozen,
    label_names=content['model']['label_names'],
    frame_rate=content['frame_rate'],
    fingerprint=fingerprint,
    source=export.source,
    reader=words.make(config.model.text, text_files(export)),
  )
  if not config.sample.autoguide:
    return found
  if manifest.EARLIER not in content['files'] or not content.get('earlier'):
    manifest.refuse(
      export.source,
      f'it lists no {manifest.EARLIER}, which its videos are guided against',
    )
  _, params = _read_network(export, config, manifest.EARLIER)
  step = content['earlier']['step']
  return found._replace(worse=found._replace(step=step, params=params))


def read_config(export: Export) -> ConfigDict:
  """Returns the configuration of the run that an export was made from.

  Raises:
    UsageError: it is not one, or a value is out of range.
  """
  content = export.content
  with _explained(export, manifest.CONFIG):
    config = schema.complete(
      serialize.from_content(content['model'], export.source)
    )
    values, keys = serialize.flatten(config), schema.keys(config.stages)
    for name in values.keys() - keys.keys():
      manifest.refuse(
        export.source,
        f'this version of vdm does not know its config.{name[:80]}',
      )
    for name, key in keys.items():
      if problem := key.problem(values[name]):
        manifest.refuse(export.source, f'its config.{name}={problem}')
    if not all(x.isprintable() for x in content['model']['label_names']):
      manifest.refuse(export.source, 'its label names are no plain text')
    config.sample.ema = content['ema']
  return config


def text_files(export: Export) -> Callable[[str], tuple[bytes, str]]:
  """Returns how the files about captions are read, see `words.in_run`.

  Raises:
    RefusedExport: when it is called; it is missing, or not what was written.
  """

  def read(name):
    listed = export.content['files']
    if name not in listed:
      manifest.refuse(export.source, f'it lists no {name}')
    data = manifest.read_file(
      export.folder, name, listed[name], export.within, export.source
    )
    return data, f'{export.source}: {name}'

  return read


def read_autoencoder(
  export: Export,
) -> tuple[ConfigDict, dict[str, Any], dict[str, FloatArray[' c']], str]:
  """Reads the autoencoder of an export.

  Returns:
    (config, params, stats, fingerprint), see `autoencoders.files.load`. The
    fingerprint is that of the run's autoencoder if the parameters are the same
    to the bit, and another one if they were rounded to bfloat16.

  Raises:
    RefusedExport: it is not what was written.
  """
  content = export.content['autoencoder']
  flat = _read_tensors(export, manifest.AUTOENCODER)
  with _explained(export, manifest.AUTOENCODER):
    config, stats = autoencoder_files.decode(content, len(flat))
    params = trees.unflatten(flat)
    # In the order in which a run writes them.
    data = files.npz_bytes(trees.flatten(params))
    sha256 = hashlib.sha256(data).hexdigest()
    fingerprint = autoencoder_files.fingerprint({**content, 'sha256': sha256})
    return config, params, stats, fingerprint


def _read_network(
  export: Export, config: ConfigDict, name: str
) -> tuple[autoencoders.Autoencoder, dict[str, Any]]:
  """Returns the autoencoder's network, and parameters in a file of an export.

  Raises:
    RefusedExport: they are not what was written, or of another network.
  """
  flat = _read_tensors(export, name)
  with _explained(export, name):
    published = image_model_rules.is_published(config.model)
    left_out = published and not any(map(IMAGE.match, flat))
    claims.check_layers(config.model, len(flat), left_out)
    codec = autoencoders.make_autoencoder(config.autoencoder)
    network = models.make_network(config.model, codec.channels, codec.levels)
    abstract = network.abstract_params()
    if left_out:
      abstract = {k: v for k, v in abstract.items() if not IMAGE.match(f'{k}/')}
    return codec, import_weights.match(
      f'{export.source}: {name}', flat, abstract
    )


def _read_tensors(export: Export, name: str) -> dict[str, np.ndarray]:
  """Returns {path: float32 array} of a file that the manifest lists."""
  content = export.content
  data = manifest.read_file(
    export.folder, name, content['files'][name], export.within, export.source
  )
  with _explained(export, name):
    if not safetensors.has_header(data):
      raise pickles.FormatError('it is no safetensors file')
    flat = {}
    for path, array in safetensors.parse(data).items():
      if array.dtype != jnp.dtype(content['dtype']):
        raise pickles.FormatError(
          f'its tensor {path[:80]} is {array.dtype}, not {content["dtype"]}'
        )
      flat[path] = np.asarray(array, np.float32)
      if not np.isfinite(flat[path]).all():
        raise pickles.FormatError(
          f'its tensor {path[:80]} has values that are not finite'
        )
  return flat


@contextlib.contextmanager
def _explained(export: Export, name: str) -> Iterator[None]:
  """Turns whatever a file's content leads to into a RefusedExport."""
  try:
    yield
  except errors.UsageError:
    raise
  except pickles.FormatError as error:
    manifest.refuse(export.source, f'{name} is invalid: {error}')
  except Exception as error:  # Parameters of other networks cause any type.
    reason = ' '.join(str(error).split())[:200]
    manifest.refuse(
      export.source,
      f'{name} does not fit this version of vdm ({type(error).__name__}: '
      f'{reason})',
    )
