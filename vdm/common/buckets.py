"""Paths that a person gives: local ones, and gs:// where buckets work.

etils.epath reaches a bucket through gcsfs, and Orbax through TensorStore and
google-cloud-storage; the extra `gcs` installs what that takes. In a bucket a
file is there as a whole, or not at all, once its upload ends; nothing can be
appended to, there are no folders, and renaming copies.
"""

from collections.abc import Iterator
import functools
import importlib.util
import os
import uuid

from etils import epath

from vdm.common import errors

_GCS = 'gs'
_PACKAGES = ('gcsfs', 'google.cloud.storage')


class UnreachableError(ConnectionError):
  """A bucket does not answer now; the same command may succeed later."""


def is_remote(path: epath.PathLike) -> bool:
  """Returns whether a path has a scheme, such as gs://."""
  return '://' in os.fspath(path)


def given(path: epath.PathLike, name: str = '') -> epath.Path:
  """Returns a path that a person gave, after checking that it can be reached.

  Args:
    path: local, or gs://BUCKET/FOLDER.
    name: of the flag or key that gives it, if known, for messages.

  Raises:
    UsageError: it has another scheme, the packages for buckets are missing, or
      the bucket cannot be used.
    UnreachableError: the network or the service fails.
  """
  if not is_remote(path):
    return epath.Path(path)
  scheme, _, rest = os.fspath(path).partition('://')
  bucket = rest.partition('/')[0]
  what = f'{name}={path}' if name else str(path)
  if scheme != _GCS or not bucket:
    raise errors.UsageError(
      f'{what} cannot be used: name a local folder or gs://BUCKET/FOLDER.'
    )
  if not all(map(_is_installed, _PACKAGES)):
    raise errors.UsageError(
      f"{what} takes packages that are not installed: pip install -e '.[gcs]'."
    )
  try:
    _connect(bucket)
  except Exception as error:  # Of four libraries, of the network and of logins.
    raise _unusable(what, error) from error
  return epath.Path(path)


def check_writable(folder: epath.Path, name: str) -> None:
  """Checks that files can be written and deleted in a folder of a bucket.

  A local folder is not looked at.

  Raises:
    UsageError: they cannot.
    UnreachableError: the network or the service fails.
  """
  if not is_remote(folder):
    return
  path = folder / f'.write_check_{uuid.uuid4().hex}'
  try:
    path.write_text('')
    path.unlink()
  except Exception as error:
    raise _unusable(f'{name}={folder}', error) from error


def local_problems(path: str, name: str) -> Iterator[str]:
  """Yields what is wrong with a path that has to be local, if anything."""
  if is_remote(path):
    yield (
      f'{name}={path} has to be on a local disk: copy it there and name the '
      'copy.'
    )


@functools.cache
def _connect(bucket: str) -> None:
  """Asks for a bucket once, as Orbax does, which takes storage.buckets.get."""
  import fsspec
  from google.cloud import storage

  # As `vdm/__init__` asks for; fsspec may have been imported before.
  fsspec.config.conf.setdefault('gcs', {}).setdefault(
    'use_listings_cache', False
  )
  storage.Client().get_bucket(bucket)


def _is_installed(package: str) -> bool:
  try:
    return importlib.util.find_spec(package) is not None
  except ModuleNotFoundError:  # A package around it is missing.
    return False


def _unusable(what, error) -> Exception:
  text = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
  if _is_transient(error):
    return UnreachableError(
      f'{what} does not answer ({text}): check the network and run the same '
      'command again.'
    )
  return errors.UsageError(
    f'{what} cannot be used ({text}): name a bucket that exists and may be '
    'written to, and log in with `gcloud auth application-default login`, or '
    'give the machine a service account.'
  )


def _is_transient(error: Exception) -> bool:
  """Returns whether the network or the service failed, not the request."""
  import aiohttp
  from google.api_core import exceptions
  from google.auth import exceptions as login
  import requests

  # An answer of the service, as gcsfs raises it.
  code = getattr(error, 'code', None)
  if isinstance(code, int) and (code == 429 or code >= 500):
    return True
  return isinstance(
    error,
    (
      exceptions.ServerError,
      exceptions.TooManyRequests,
      exceptions.RetryError,
      login.TransportError,
      aiohttp.ClientError,
      requests.exceptions.ConnectionError,
      requests.exceptions.Timeout,
      ConnectionError,
      TimeoutError,
    ),
  )
