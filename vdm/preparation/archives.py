"""Unpacks archives that are never trusted.

Members are checked before anything is written: no absolute or `..` paths, no
links, no sizes that do not fit. A .zip is extracted one member at a time to a
temporary file; a .rar as a whole, by whatever unpacker is installed, which may
write no file larger than the listing says.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import os
import re
import shutil
import stat
import subprocess
import tempfile
from typing import NoReturn
import zipfile
import zlib

from vdm.data.builders import build_plan
from vdm.preparation import decoding

try:
  import resource
except ImportError:  # Windows: declared sizes are believed.
  resource = None

_MAX_FILE_BYTES = 16 << 30
_MAX_TOTAL_BYTES = 1 << 40
_MAX_RATIO = 200  # Video hardly compresses; a bomb does a thousandfold.


@dataclasses.dataclass(frozen=True)
class _Unpacker:
  """How to call a program that unpacks archives.

  Attributes:
    names: options that list the members' names, one a line.
    details: options that list their kinds and sizes.
    kind: pattern in those lines, whose group is the kind of a member.
    size: likewise, its size in bytes.
    kinds: of files and folders; every other kind is refused.
    extract: options that unpack into the current folder.
  """

  names: tuple[str, ...]
  details: tuple[str, ...]
  kind: str
  size: str
  kinds: tuple[str, ...]
  extract: tuple[str, ...]


_UNPACKERS = {
  'unrar': _Unpacker(
    names=('lb', '-p-'),
    details=('vt', '-p-'),
    kind=r'^\s*Type: (.*?)\s*$',
    size=r'^\s*Size: (\d+)\s*$',
    kinds=('File', 'Directory'),
    extract=('x', '-o+', '-idq', '-p-'),
  ),
  'bsdtar': _Unpacker(
    names=('-tf',),
    details=('-tvf',),
    kind=r'^(\S)',
    size=r'^\S+\s+\d+\s+\S+\s+\S+\s+(\d+)\s',
    kinds=('-', 'd'),
    extract=('-xf',),
  ),
}


def zip_members(path: str) -> list[zipfile.ZipInfo]:
  """Returns the files in a .zip archive, all checked.

  Raises:
    BuildError: if a member is unsafe, or the file is no .zip archive.
  """
  members = [m for m in _open_zip(path).infolist() if not m.is_dir()]
  _check_names([m.filename for m in members], path)
  seen, total = set(), 0
  for member in members:
    what = f'{path}: member {member.filename!r}'
    size, total = member.file_size, total + member.file_size
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
      _refuse(f'{what} is a link or a device')
    if member.flag_bits & 1:
      _refuse(f'{what} is encrypted')
    if member.filename in seen:
      _refuse(f'{what} is listed twice')
    if size > _MAX_RATIO * (member.compress_size + 4096):
      _refuse(f'{what} unpacks to {size} bytes, like a bomb')
    if size > _MAX_FILE_BYTES or total > _MAX_TOTAL_BYTES:
      _refuse(f'{what} makes {total} bytes, more than is accepted')
    seen.add(member.filename)
  return members


@contextlib.contextmanager
def extracted(path: str, member: str) -> Iterator[str]:
  """Yields the path of a temporary file with the content of a .zip's member.

  Raises:
    VideoError: if the archive is damaged there.
  """
  suffix = os.path.splitext(member)[1]
  with tempfile.NamedTemporaryFile(prefix='vdm_', suffix=suffix) as file:
    try:
      # ZipFile stops at the declared size and verifies the checksum.
      with _open_zip(path).open(member) as content:
        shutil.copyfileobj(content, file, 1 << 20)
      file.flush()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
      raise decoding.VideoError(
        'undecodable', f'the archive is damaged there: {e}'
      ) from e
    yield file.name


def unpack_rar(path: str, folder: str) -> None:
  """Unpacks a .rar archive into a folder.

  Raises:
    BuildError: if it is unsafe or damaged, or no unpacker is installed.
  """
  program = next(filter(shutil.which, _UNPACKERS), None)
  if program is None:
    raise build_plan.BuildError(
      'No program here unpacks .rar: run `sudo apt-get install unrar`, or'
      f' unpack it elsewhere with `unrar x {os.path.basename(path)}` and set'
      ' data.source to the folder.'
    )
  path = os.path.abspath(path)
  unpacker = _UNPACKERS[program]
  _check_names(
    _run([program, *unpacker.names, path], folder).splitlines(), path
  )
  max_bytes = _check_details(
    _run([program, *unpacker.details, path], folder), unpacker, path
  )
  _run([program, *unpacker.extract, path], folder, max_bytes)
  for directory, subfolders, files in os.walk(folder):
    for name in (*subfolders, *files):
      if os.path.islink(os.path.join(directory, name)):
        raise build_plan.BuildError(f'{path} contains the link {name!r}.')


def _open_zip(path: str) -> zipfile.ZipFile:
  """Returns an archive, opened once in each process."""
  try:
    return _cached_zip(path, os.stat(path).st_mtime_ns)
  except zipfile.BadZipFile as error:
    raise build_plan.BuildError(
      f'{path} is no .zip archive: {error}'
    ) from error


@functools.lru_cache(maxsize=2)
def _cached_zip(path: str, time_ns: int) -> zipfile.ZipFile:
  del time_ns  # Another version is another archive.
  return zipfile.ZipFile(path)


def _check_names(names: Sequence[str], archive: str) -> None:
  """Raises BuildError if a member could be written outside its folder."""
  for name in names:
    parts = name.replace('\\', '/').split('/')
    if parts[0] == '' or ':' in parts[0] or '..' in parts or '\0' in name:
      _refuse(f'{archive} has the unsafe member name {name!r}')


def _check_details(listing: str, unpacker: _Unpacker, path: str) -> int:
  """Refuses links, devices and bombs; returns the largest member's bytes."""
  for kind in re.findall(unpacker.kind, listing, re.MULTILINE):
    if kind not in unpacker.kinds:
      _refuse(f'{path} contains a link or a device ({kind})')
  sizes = [int(n) for n in re.findall(unpacker.size, listing, re.MULTILINE)]
  if not sizes:
    _refuse(f'{path} does not list the sizes of its members')
  total = sum(sizes)
  if total > _MAX_RATIO * (os.path.getsize(path) + 4096 * len(sizes)):
    _refuse(f'{path} unpacks to {total} bytes, like a bomb')
  if max(sizes) > _MAX_FILE_BYTES or total > _MAX_TOTAL_BYTES:
    _refuse(f'{path} makes {total} bytes, more than is accepted')
  return max(sizes)


def _refuse(problem: str) -> NoReturn:
  raise build_plan.BuildError(f'{problem}; nothing was unpacked.')


def _run(command: list[str], folder: str, max_bytes: int = 0) -> str:
  """Runs a command that may write no file above `max_bytes`.

  Returns:
    Its standard output.
  """

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

  result = subprocess.run(
    command,
    cwd=folder,
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    errors='replace',
    check=False,
    preexec_fn=limit if resource else None,
  )
  if result.returncode:
    lines = (result.stderr or result.stdout).strip().splitlines() or ['?']
    raise build_plan.BuildError(f'`{" ".join(command)}` failed: {lines[-1]}')
  return result.stdout
