"""Data sets by name: where the one of a configuration is, and building it.

directory = datasets.ensure(config.data)
source = builders.open_source(directory, 'train')
"""

import os

from vdm.data import builders
from vdm.data.builders import synthetic_scenes
from vdm.preparation import ucf101
from vdm.preparation import video_folder

VERSION = '1.0.0'  # Raise it when the same settings give other content.

_DATASETS = {
  'synthetic_scenes': synthetic_scenes,
  'ucf101': ucf101,
  'video_folder': video_folder,
  'driving': video_folder,
  'webvid': video_folder,
}


def dataset_dir(data_config) -> str:
  """Returns the directory of the dataset that `config.data` asks for.

  It is `<root>/<name>/<settings>/<version>`, whether built or not; everything
  that the stored content depends on is in `<settings>`.

  Raises:
    ValueError: for an unknown name.
  """
  module = _dataset(data_config.name)
  folder = os.path.join(data_config.root, data_config.name)
  name = module.config_name(data_config, folder)
  return os.path.join(folder, name, VERSION)


def build(data_config, *, allow_missing: bool = False, runner=None) -> str:
  """Builds the dataset unless it is there, and returns its directory.

  The directory appears by one rename when everything is in it: a build that
  is killed leaves nothing that looks finished, and the same call starts anew.

  Args:
    data_config: `config.data`.
    allow_missing: build without the clips that lists name and nobody can
      read; they are reported instead of stopping the build.
    runner: what prepares the videos, see `workers.run`; None: processes of
      this machine.

  Raises:
    BuildError: if nothing can be built, with the reason.
  """
  directory = dataset_dir(data_config)
  if builders.is_complete(directory):
    return directory
  from vdm.data.builders import writer  # Imports TFDS; reading must not.

  module = _dataset(data_config.name)
  plan = module.make_plan(
    data_config, allow_missing=allow_missing, runner=runner
  )
  return writer.write(plan, root=data_config.root, version=VERSION)


def ensure(data_config) -> str:
  """Returns the dataset's directory; builds it if it is synthetic.

  Raises:
    MissingDataset: if it has to be prepared from videos first.
  """
  directory = dataset_dir(data_config)
  if builders.is_complete(directory):
    return directory
  if data_config.name == 'synthetic_scenes':
    return build(data_config)
  raise builders.MissingDataset(
    f'There is no dataset in {directory}; build it with `python -m'
    ' vdm.prepare clips --config <this config>`.'
  )


def _dataset(name: str):
  if name not in _DATASETS:
    raise ValueError(
      f'Unknown dataset {name!r} in data.name; there are'
      f' {", ".join(_DATASETS)}.'
    )
  return _DATASETS[name]
