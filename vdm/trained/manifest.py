"""The `config.json` of an export: plain data, which says what the export is.

It is written last and marks the export as complete. It lists every file that
belongs to the export with its size and sha256, except the card, README.md,
which people edit and nothing reads; and it ends with a sha256 of itself. What
it does not list is ignored. Nobody has to trust an export: types, names, links,
sizes and hashes are checked before any other file is opened.
"""

from collections.abc import Mapping
import hashlib
import json
import math
import pathlib
import re
from typing import Any, NoReturn

from etils import epath

from vdm.common import errors
from vdm.models import import_weights
from vdm.models import safetensors
from vdm.models.autoencoders import files

CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
EARLIER, AUTOENCODER = 'earlier.safetensors', 'autoencoder.safetensors'
FORMAT, VERSION = 'vdm-export', 1
DTYPES = ('float32', 'bfloat16')
MAX_FRAME_RATE = 1000.0
# The parts of the file.
TYPES = {
  'format': str,
  'format_version': int,
  'model': dict,  # Configuration and names of the labels, as a run's file.
  'stage': str,
  'step': int,
  'ema': float,  # Width of the average.
  'dtype': str,  # Of the parameters in the files; see DTYPES.
  'frame_rate': float,
  'autoencoder': dict,  # As files.py writes it: of the one in the run.
  'run': dict,  # Where it comes from, for people.
  'files': dict,  # {name: {'bytes', 'sha256'}}
  'sha256': str,
}
# Of some exports also 'earlier': {'step'}, of the average in EARLIER.
_NAME = re.compile(r'([A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*', re.ASCII)
_SHA256 = re.compile(r'[0-9a-f]{64}')


class RefusedExport(errors.UsageError):
  """An export is not what was written; the message is one sentence."""


def refuse(source: epath.PathLike, why: str) -> NoReturn:
  """Raises a RefusedExport."""
  raise RefusedExport(f'{source} is refused: {why}; export or copy it again.')


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values of a `config.json`, of parts but for the first ones."""
  sealed = {'format': FORMAT, 'format_version': VERSION, **content}
  return {**sealed, 'sha256': _sha256(sealed)}


def describe(data: bytes) -> dict[str, Any]:
  """Returns what is listed of a file with these bytes."""
  return {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}


def exists(folder: epath.PathLike) -> bool:
  """Returns whether a folder holds an export, or what is left of one."""
  folder = epath.Path(folder)
  if (folder / WEIGHTS).exists():
    return True
  try:
    return 'format' in _parse(_read(folder / CONFIG, import_weights.MAX_CONFIG))
  except (OSError, *import_weights.READ_ERRORS):
    return False


def load(
  folder: epath.PathLike, within: pathlib.Path | None, source: str
) -> dict[str, Any]:
  """Reads and checks the `config.json` of an export, and no other file.

  Args:
    folder: of the export.
    within: the folder that links stay in; None: `folder`.
    source: named in errors.

  Returns:
    Its content; every part has its type, names of files stay in the folder.

  Raises:
    RefusedExport: it is not what `seal` returned.
  """
  path = locate(folder, CONFIG, within, source)
  try:
    content = _parse(_read(path, import_weights.MAX_CONFIG))
    if problem := _problem(content):
      refuse(source, f'its {CONFIG} {problem}')
  except RefusedExport:
    raise
  # Whatever a file that something else wrote may lead to.
  except import_weights.READ_ERRORS as error:
    refuse(source, f'its {CONFIG} is corrupt ({type(error).__name__})')
  return content


def locate(
  folder: epath.PathLike, name: str, within: pathlib.Path | None, source: str
) -> epath.Path:
  """Returns the path of a file of an export.

  Raises:
    RefusedExport: there is none, or it is a link that leads out of `within`.
  """
  path = epath.Path(folder) / name
  found = path.is_file()
  if '://' not in str(folder):
    root, real = pathlib.Path(within or folder).resolve(), pathlib.Path(path)
    if not real.resolve().is_relative_to(root):
      refuse(source, f'its {name} is a link that leads out of the folder')
    found = real.is_file()  # To epath a pipe is a file too.
  if not found:
    last = ', which is written last,' if name == CONFIG else ''
    refuse(source, f'its {name}{last} is missing')
  return path


def read_file(
  folder: epath.PathLike,
  name: str,
  entry: Mapping[str, Any],
  within: pathlib.Path | None,
  source: str,
) -> bytes:
  """Returns the bytes of a file that the manifest lists, after checking them.

  Raises:
    RefusedExport: it is missing, or not what is listed.
  """
  path = locate(folder, name, within, source)
  size = path.stat().length
  if size != entry['bytes']:
    refuse(source, f'its {name} has {size} bytes, not {entry["bytes"]}')
  data = path.read_bytes()
  if describe(data) != entry:
    refuse(source, f'its {name} is not what was written (another sha256)')
  return data


def _read(path: epath.Path, most: int) -> bytes:
  with path.open('rb') as file:
    data = file.read(most + 1)
  if len(data) > most:
    raise ValueError(f'more than {most} bytes')
  return data


def _parse(data: bytes) -> dict[str, Any]:
  content = json.loads(
    data, object_pairs_hook=safetensors.unique, parse_constant=_no_constant
  )
  if not isinstance(content, dict):
    raise ValueError('not a JSON object')
  return content


def _no_constant(name: str):
  raise ValueError(f'{name} is not JSON')


def _sha256(content: Mapping[str, Any]) -> str:
  text = json.dumps(content, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def _problem(content: dict[str, Any]) -> str:
  """Returns what is wrong with a file's content, '' if nothing is."""
  if content.get('format') != FORMAT:
    return 'is not that of an export'
  version = content.get('format_version')
  if type(version) is int and version > VERSION:
    return (
      f'is of format {version} and this version of vdm reads {VERSION}: update '
      'vdm'
    )
  for name, kind in TYPES.items():
    if type(content.get(name)) is not kind:
      return f'has no {name}, or one of another type than {kind.__name__}'
  unsealed = {k: v for k, v in content.items() if k != 'sha256'}
  if content['sha256'] != _sha256(unsealed):
    return 'was changed after it was written'
  if content['dtype'] not in DTYPES:
    return f'has a dtype that is none of {", ".join(DTYPES)}'
  if content['step'] < 0 or not 0 < content['frame_rate'] <= MAX_FRAME_RATE:
    return 'has a step or frame rate that is out of range'
  if (earlier := content.get('earlier')) is not None and (
    not isinstance(earlier, dict)
    or earlier.keys() != {'step'}
    or type(earlier['step']) is not int
    or not 0 < earlier['step'] < content['step']
  ):
    return 'has an earlier step that is none'
  return _files_problem(content['files']) or _autoencoder_problem(
    content['autoencoder']
  )


def _files_problem(listed: dict[str, Any]) -> str:
  for name, entry in listed.items():
    if not _NAME.fullmatch(name) or name in (CONFIG, CARD):
      return f'lists {name[:80]!r}, which is no name of a file of an export'
    if (
      not isinstance(entry, dict)
      or entry.keys() != {'bytes', 'sha256'}
      or type(entry['bytes']) is not int
      or entry['bytes'] < 0
      or not _is_sha256(entry['sha256'])
    ):
      return f'does not list the size and sha256 of {name[:80]}'
  for name in (WEIGHTS, AUTOENCODER):
    if name not in listed:
      return f'does not list {name}'
  return ''


def _autoencoder_problem(content: dict[str, Any]) -> str:
  stats = content.get('statistics')
  if (
    not isinstance(content.get('settings'), dict)
    or not isinstance(stats, dict)
    or stats.keys() != {'mean', 'scale'}
    or not all(map(_are_numbers, stats.values()))
    or not all(scale > 0 for scale in stats['scale'])
    or not all(_is_sha256(content.get(x)) for x in ('sha256', 'fingerprint'))
  ):
    return 'does not describe its autoencoder'
  if files.fingerprint(content) != content['fingerprint']:
    return 'describes another autoencoder than its fingerprint'
  return ''


def _is_sha256(value: Any) -> bool:
  return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _are_numbers(values: Any) -> bool:
  return isinstance(values, list) and all(
    type(x) in (int, float) and math.isfinite(x) for x in values
  )
