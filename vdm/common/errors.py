"""The error that a person can mend, as one sentence instead of a traceback."""

from collections.abc import Iterator
import contextlib

USAGE_ERROR = 2  # Exit code: the command line or the configuration is wrong.


class UsageError(ValueError):
  """A mistake in the command, the configuration or the files they name.

  Commands print its text and end with exit code 2. It is one sentence that
  says what to change.
  """


# Of a path that a person gave: no such file, no permission, a file in place of
# a folder, a folder in place of a file.
PATH_ERRORS = (
  FileNotFoundError,
  PermissionError,
  FileExistsError,
  NotADirectoryError,
  IsADirectoryError,
)


@contextlib.contextmanager
def as_usage(prefix: str = '') -> Iterator[None]:
  """Turns a ValueError of the body into a UsageError.

  For code that checks or reads what a person has given, where such an error
  is not one of the program. Commands know `PATH_ERRORS` by themselves.
  """
  try:
    yield
  except UsageError:
    raise
  except ValueError as error:
    raise UsageError(f'{prefix}{error}') from error
