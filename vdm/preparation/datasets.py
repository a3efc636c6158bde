"""Datasets by name: where that of a configuration is, and how it is built.

directory = datasets.ensure(config.data)
source = builders.open_source(directory, 'train')

A dataset is a module with `config_name(data)`, which names the settings that
its content depends on, and `make_plan(data, allow_missing, runner)`, which says
how to build it.
"""

import functools
import os
import re
import types

from absl import logging
from ml_collections import ConfigDict

from vdm.data import builders
from vdm.data.builders import synthetic_scenes
from vdm.preparation import ucf101
from vdm.preparation import versions
from vdm.preparation import video_folder
from vdm.preparation import workers

_SYNTHETIC = '1.0.0'  # Version of the dataset that is not made from videos.
_DATASETS = {
  'synthetic_scenes': synthetic_scenes,
  'ucf101': ucf101,
  'video_folder': video_folder,
  'driving': video_folder,
  'webvid': video_folder,
}


def dataset_dir(data: ConfigDict) -> str:
  """Returns the directory of the dataset that `config.data` asks for.

  It is `<root>/<name>/<settings>/<version>`, whether built or not; everything
  that the stored content depends on is in `<settings>`.

  Raises:
    ValueError: for an unknown name.
  """
  settings = _module(data.name).config_name(data)
  return os.path.join(data.root, data.name, settings, _version(data.name))


def build(
  data: ConfigDict,
  *,
  allow_missing: bool = False,
  runner: workers.Runner | None = None,
) -> str:
  """Builds the dataset unless it exists, and returns its directory.

  The directory appears by one rename when everything is in it: a build that
  is killed leaves nothing that looks finished, and the same call builds it.

  Args:
    data: `config.data`.
    allow_missing: build without the clips that lists name but that cannot be
      read; they are reported instead of stopping the build.
    runner: calls the preparation on files; None: worker processes of this
      machine.

  Raises:
    BuildError: if nothing can be built, with the reason.
  """
  directory = dataset_dir(data)
  if builders.is_complete(directory):
    return directory
  from vdm.data.builders import writer  # Imports TFDS; reading must not.

  plan = _module(data.name).make_plan(
    data, allow_missing=allow_missing, runner=runner
  )
  return writer.write(plan, root=data.root, version=_version(data.name))


def ensure(data: ConfigDict) -> str:
  """Returns the dataset's directory; builds it if it is synthetic.

  Where it was prepared by an older version alone, it is that one's, with a
  warning.

  Raises:
    MissingDataset: if it has to be prepared from videos first.
  """
  if data.name == 'synthetic_scenes':
    return build(data)
  directory = dataset_dir(data)
  older = _older(directory)
  if older and not builders.is_complete(directory):
    _warn_of_version(older)
    return older
  builders.read_info(directory)  # Raises if it is missing.
  return directory


def _older(directory: str) -> str | None:
  """Returns the newest finished dataset of an older version beside one."""
  folder, version = os.path.split(directory)
  names = os.listdir(folder) if os.path.isdir(folder) else []
  built = [
    name
    for name in names
    if re.fullmatch(r'\d+\.\d+\.\d+', name)
    and versions.key(name) < versions.key(version)
    and builders.is_complete(os.path.join(folder, name))
  ]
  return os.path.join(folder, max(built, key=versions.key)) if built else None


@functools.cache  # Once a dataset.
def _warn_of_version(directory: str) -> None:
  version = os.path.basename(directory)
  logging.warning(
    '%s was prepared by version %s, this is %s. Mended since: %s. `python -m'
    ' vdm.prepare clips --config <this config>` prepares it anew.',
    directory,
    version,
    versions.VERSION,
    '; '.join(versions.mended_since(version)),
  )


def _version(name: str) -> str:
  return _SYNTHETIC if name == 'synthetic_scenes' else versions.VERSION


def _module(name: str) -> types.ModuleType:
  if name not in _DATASETS:
    raise ValueError(
      f'Unknown dataset {name!r} in data.name; there are'
      f' {", ".join(_DATASETS)}.'
    )
  return _DATASETS[name]
