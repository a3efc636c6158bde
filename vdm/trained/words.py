"""What a run or an export keeps of how it reads captions, as JSON.

  vocabulary.json    the words that it has learned, a list
  text_encoder.json  the sha256 of the pretrained encoder that it was trained
                     with; its name and revision are in the configuration

A run has them in `text/`, an export beside its other files.
"""

from collections.abc import Callable, Mapping, Sequence
import json
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vdm.common import errors
from vdm.common import files
from vdm.common import vocabulary
from vdm.preparation import text_encoder

FOLDER = 'text'  # In a run's folder.
VOCABULARY, ENCODER = 'vocabulary.json', 'text_encoder.json'


def name(text: ConfigDict) -> str:
  """Returns the name of a model's file; '' if it reads no captions."""
  names = {'none': '', 'learned': VOCABULARY, 'pretrained': ENCODER}
  return names[text.encoder]


def to_bytes(content: Sequence[str] | Mapping[str, str]) -> bytes:
  """Returns the content of a file: the words, or {'sha256'}."""
  if not isinstance(content, Mapping):
    content = list(content)
  return json.dumps(content, indent=0, ensure_ascii=False).encode() + b'\n'


def content_of(reader: vocabulary.Reader) -> Any:
  """Returns what is kept of a reader that `make` has made."""
  if isinstance(reader, vocabulary.Words):
    return reader.vocabulary
  return {'sha256': reader.sha256}


def write(path: epath.Path, content: Sequence[str] | Mapping[str, str]) -> None:
  """Writes a file, and its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_bytes(path, to_bytes(content))


def in_run(workdir: epath.Path) -> Callable[[str], tuple[bytes, str]]:
  """Returns name -> (bytes, source for errors) of the files of a run.

  Raises:
    UsageError: when it is called; the file is missing.
  """

  def read(file):
    path = epath.Path(workdir) / FOLDER / file
    if not path.exists():
      raise errors.UsageError(
        f'{path} is missing, which says how captions are read: restore it from '
        'a copy.'
      )
    return path.read_bytes(), str(path)

  return read


def make(
  text: ConfigDict, read: Callable[[str], tuple[bytes, str]]
) -> vocabulary.Reader | None:
  """Returns what reads captions for a network; None if it reads none.

  Args:
    text: `config.model.text`.
    read: of the files, see `in_run`.

  Raises:
    UsageError: the file is damaged.
  """
  if text.encoder == 'none':
    return None
  if text.encoder == 'learned':
    return vocabulary.Words(words(text, read), text.length)
  return text_encoder.Encoder(
    text.name,
    text.revision,
    text.length,
    text.features,
    text.padded,
    sha256=sha256(read),
  )


def words(
  text: ConfigDict, read: Callable[[str], tuple[bytes, str]]
) -> tuple[str, ...]:
  """Returns the words that a network has learned, see `make`."""
  data, source = read(VOCABULARY)
  content = _parse(data, source)
  if problem := vocabulary.problem(content, text.vocabulary):
    raise errors.UsageError(f'{source} {problem}: restore it from a copy.')
  return tuple(content)


def sha256(read: Callable[[str], tuple[bytes, str]]) -> str:
  """Returns the hash of the encoder that a network was trained with."""
  data, source = read(ENCODER)
  content = _parse(data, source)
  found = content.get('sha256') if isinstance(content, dict) else None
  if not isinstance(found, str) or not found:
    raise errors.UsageError(f'{source} has no sha256: restore it from a copy.')
  return found


def _parse(data: bytes, source: str) -> Any:
  try:
    return json.loads(data)
  except (ValueError, RecursionError) as error:
    raise errors.UsageError(f'{source} is not valid JSON.') from error
