"""The Hugging Face hub: what sources name there, and single files of it.

  hf://owner/name[@revision]      a repository, of an export
  hf://owner/name@revision/path   a file, of published weights

The hub's library, and what it sends with, are imported when it is asked.
"""

from collections.abc import Iterator
import contextlib
import pathlib
import re
from types import ModuleType

from vdm.common import errors

PREFIX = 'hf://'
_REPO = rf'{PREFIX}(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)'


def is_on_hub(source: str) -> bool:
  """Returns whether a source names something on the hub."""
  return source.startswith(PREFIX)


def split(source: str) -> tuple[str, str]:
  """Returns (owner/name, revision) of a source; 'main' without a revision.

  Raises:
    UsageError: it names no repository.
  """
  match = re.fullmatch(rf'{_REPO}(@(?P<revision>\w[\w./-]*))?', source)
  if not match:
    raise errors.UsageError(
      f'{source} names nothing on the hub: give hf://owner/name@revision, with '
      'a commit or tag as revision.'
    )
  return match['repo'], match['revision'] or 'main'


def split_file(source: str, default: str) -> tuple[str, str, str]:
  """Returns (owner/name, revision, path) of a source.

  The revision has no slash, since the path begins there.

  Args:
    source: of a file.
    default: the path of a source that has none.

  Raises:
    UsageError: it names no file.
  """
  match = re.fullmatch(
    rf'{_REPO}@(?P<revision>\w[\w.-]*)(/(?P<file>.+))?', source
  )
  if not match:
    raise errors.UsageError(
      f'{source} names no file on the hub: give hf://owner/name@revision/path, '
      'with a commit or tag as revision.'
    )
  return match['repo'], match['revision'], match['file'] or default


def fetch(repo: str, revision: str, file: str) -> pathlib.Path | None:
  """Returns the path of a file in the local cache, downloading it if need be.

  Args:
    repo: owner/name.
    revision: a commit, tag or branch.
    file: its path in the repository.

  Returns:
    None if the repository has no such file.

  Raises:
    UsageError: whether it has one is unknown, as the hub could not be reached
      or refused to say; it could not be downloaded; or huggingface_hub is not
      installed.
  """
  source = f'{PREFIX}{repo}@{revision}/{file}'
  library = _library(source)
  with explained(f'{source} could not be downloaded'):
    try:
      path = library.hf_hub_download(repo, file, revision=revision)
    except library.utils.LocalEntryNotFoundError:
      # The hub does not answer, but once it may have said that there is none.
      known = library.try_to_load_from_cache(repo, file, revision=revision)
      if known is library._CACHED_NO_EXIST:
        return None
      raise
    # RemoteEntryNotFoundError, a name that versions below 1 do not have.
    except library.utils.EntryNotFoundError:
      return None
  return pathlib.Path(path)


def size(repo: str, revision: str, file: str) -> int | None:
  """Returns the bytes of a file on the hub, None if it does not say.

  Args:
    repo: owner/name.
    revision: a commit, tag or branch.
    file: its path in the repository.

  Raises:
    UsageError: there is no such file, the hub could not be reached, or
      huggingface_hub is not installed.
  """
  source = f'{PREFIX}{repo}@{revision}/{file}'
  library = _library(source)
  with explained(f'{source} could not be found'):
    url = library.hf_hub_url(repo, file, revision=revision)
    return library.get_hf_file_metadata(url).size


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
  """Turns what fails between here and the hub into one sentence.

  Raises:
    UsageError: `what`, and why.
  """
  try:
    yield
  # Errors of the file system, the library and the network.
  except (OSError, ValueError, RuntimeError, *_sending_errors()) as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise errors.UsageError(f'{what}: {reason}') from error


def _library(source: str) -> ModuleType:
  try:
    import huggingface_hub
    import huggingface_hub.utils
  except ImportError:
    raise errors.UsageError(
      f'{source} needs huggingface_hub: pip install huggingface_hub, or give '
      'what is on this machine.'
    ) from None
  return huggingface_hub


def _sending_errors() -> tuple[type[Exception], ...]:
  """Returns what the library lets through of the one that it sends with."""
  try:
    import httpx
  except ImportError:  # Below version 1 it is another, of OSErrors.
    return ()
  return (httpx.HTTPError,)
