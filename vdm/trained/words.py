"""The file of a run's or an export's vocabulary: a list of words, as JSON."""

from collections.abc import Sequence
import json

from etils import epath
from ml_collections import ConfigDict

from vdm.common import errors
from vdm.common import files
from vdm.common import vocabulary

NAME = 'vocabulary.json'
FILE = f'text/{NAME}'  # In a run's folder.


def reader(
  text: ConfigDict, vocabulary_: tuple[str, ...]
) -> vocabulary.Reader | None:
  """Returns what reads captions for a network; None if it reads none.

  Args:
    text: `config.model.text`.
    vocabulary_: the words that it has learned.
  """
  if text.encoder == 'learned':
    return vocabulary.Words(vocabulary_, text.length)
  return None


def write(path: epath.Path, words: Sequence[str]) -> None:
  """Writes a vocabulary."""
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_bytes(path, to_bytes(words))


def to_bytes(words: Sequence[str]) -> bytes:
  """Returns the content of the file."""
  return json.dumps(list(words), indent=0, ensure_ascii=False).encode() + b'\n'


def read(path: epath.Path, size: int) -> tuple[str, ...]:
  """Reads a vocabulary.

  Args:
    path: of the file.
    size: number of words that the network has room for.

  Raises:
    UsageError: it is missing or damaged.
  """
  if not path.exists():
    raise errors.UsageError(
      f'{path} is missing, which says what the words of captions are: restore '
      'it from a copy.'
    )
  return parse(path.read_bytes(), size, str(path))


def parse(data: bytes, size: int, source: str) -> tuple[str, ...]:
  """Returns the words of a file's content.

  Raises:
    UsageError: it is damaged.
  """
  try:
    content = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise errors.UsageError(f'{source} is not valid JSON.') from error
  if problem := vocabulary.problem(content, size):
    raise errors.UsageError(f'{source} {problem}: restore it from a copy.')
  return tuple(content)
