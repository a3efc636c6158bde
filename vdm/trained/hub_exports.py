"""Exports on the Hugging Face hub, as hf://owner/name@revision."""

from collections.abc import Iterator
import contextlib
import pathlib
import re

from absl import logging

from vdm.common import errors

PREFIX = 'hf://'
# All that reading takes; nothing else is downloaded.
PATTERNS = ('*.json', '*.safetensors', '*.md')


def is_on_hub(source: str) -> bool:
  """Returns whether a source names a repository of the hub."""
  return source.startswith(PREFIX)


def split(source: str) -> tuple[str, str]:
  """Returns (owner/name, revision) of a source; 'main' without a revision.

  Raises:
    UsageError: it names no repository.
  """
  match = re.fullmatch(
    r'hf://(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>\w[\w./-]*))?',
    source,
  )
  if not match:
    raise errors.UsageError(
      f'{source} names nothing on the hub: give hf://owner/name@revision, with '
      'a commit or tag as revision.'
    )
  return match['repo'], match['revision'] or 'main'


def download(source: str) -> tuple[pathlib.Path, pathlib.Path, str]:
  """Downloads an export, or finds it in the local cache.

  Returns:
    (folder, cache, source): where the files are, the folder of the cache that
    links among them stay in, and the source with its commit.

  Raises:
    UsageError: it cannot be downloaded, or huggingface_hub is not installed.
  """
  repo, revision = split(source)
  try:
    import huggingface_hub
  except ImportError:
    raise errors.UsageError(
      f'{source} needs huggingface_hub: pip install huggingface_hub, or give '
      'a local folder.'
    ) from None
  with explained(f'{source} could not be downloaded'):
    folder = pathlib.Path(
      huggingface_hub.snapshot_download(
        repo, revision=revision, allow_patterns=list(PATTERNS)
      )
    )
  # <cache>/models--owner--name/snapshots/<commit>, links to ../../blobs.
  commit = folder.name
  resolved = f'{PREFIX}{repo}@{commit}'
  logging.info('%s is commit %s: name it as %s.', source, commit, resolved)
  return folder, folder.parent.parent, resolved


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
  """Turns what fails between here and the hub into one sentence.

  Raises:
    UsageError: `what`, and why.
  """
  import httpx  # What huggingface_hub sends with.

  try:
    yield
  # Errors of the network, the library and the file system.
  except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise errors.UsageError(f'{what}: {reason}') from error
