"""Exports on the Hugging Face hub, as hf://owner/name@revision."""

import pathlib
import shutil

from absl import logging

from vdm.common import errors
from vdm.common import hub
from vdm.trained import manifest
from vdm.trained import words

# All that reading takes; nothing else is downloaded.
NAMES = (
  manifest.WEIGHTS,
  manifest.EARLIER,
  manifest.AUTOENCODER,
  words.VOCABULARY,
  words.ENCODER,
)


def download(source: str) -> tuple[pathlib.Path, pathlib.Path, str]:
  """Downloads an export, or finds it in the local cache.

  What describes it comes first, and is checked before the other files are
  asked for: those of a wrong repository may be of any number and size.

  Returns:
    (folder, cache, source): where the files are, the folder of the cache that
    links among them stay in, and the source with its commit.

  Raises:
    RefusedExport: it is none, or its files are not what it lists.
    UsageError: it cannot be downloaded, huggingface_hub is not installed, or
      the disk is too full.
  """
  repo, revision = hub.split(source)
  path = hub.fetch(repo, revision, manifest.CONFIG)
  if path is None:
    manifest.refuse(
      source, f'its {manifest.CONFIG}, which is written last, is missing'
    )
  # <cache>/models--owner--name/snapshots/<commit>, links to ../../blobs.
  folder, cache = path.parent, path.parent.parent.parent
  commit = folder.name
  resolved = f'{hub.PREFIX}{repo}@{commit}'
  logging.info('%s is commit %s: name it as %s.', source, commit, resolved)
  listed = manifest.load(folder, cache, resolved)['files']
  missing = {
    name: listed[name]['bytes']
    for name in NAMES
    if name in listed and not (folder / name).is_file()
  }
  free = shutil.disk_usage(folder).free
  if (needed := sum(missing.values())) > free:
    raise errors.UsageError(
      f'{resolved} has {needed} bytes to download and the disk of {folder} has '
      f'{free} left: free some, or set HF_HOME to a folder with more.'
    )
  for name, listed_size in missing.items():
    found = hub.size(repo, commit, name)
    if found is not None and found != listed_size:
      manifest.refuse(
        resolved, f'its {name} has {found} bytes, not {listed_size}'
      )
    hub.fetch(repo, commit, name)
  return folder, cache, resolved
