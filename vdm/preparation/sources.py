"""Files of a source: a folder, or an archive that is never trusted.

Members of an archive are checked before anything is written: no absolute or
`..` paths, no links, no sizes that do not fit. A .zip is then extracted one
member at a time to a temporary file; a .rar by whatever unpacker is installed,
which may write no file larger than the listing says.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import zipfile
import zlib

from vdm.data.builders import shot_records
from vdm.preparation import decoding

try:
  import resource
except ImportError:  # Windows: sizes are believed.
  resource = None

_MAX_FILE_BYTES = 16 << 30
_MAX_TOTAL_BYTES = 1 << 40
_MAX_RATIO = 200  # Video hardly compresses; a bomb does a thousandfold.


@dataclasses.dataclass(frozen=True)
class _Unpacker:
  """A program that unpacks archives.

  Attributes:
    names: options that list the names, one a line.
    details: options that tell kinds and sizes.
    kind: pattern in those lines, whose group is the kind of a member.
    size: likewise, its size in bytes.
    kinds: of files and folders; every other kind is refused.
    extract: options that unpack into the folder it is started in.
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


@dataclasses.dataclass(frozen=True)
class File:
  """One file of a source.

  Attributes:
    name: path in the source, with forward slashes.
    size: bytes.
    time_ns: when it, or its archive, was last changed.
    open: gives a context in which the file lies at a path on disk. Another
      process can call it too.
  """

  name: str
  size: int
  time_ns: int
  open: Callable[[], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def open_tree(source: str) -> Iterator[list[File]]:
  """Yields all regular files of a folder or archive, sorted by name.

  Raises:
    BuildError: if the archive is unsafe, damaged or cannot be unpacked.
  """
  suffix = os.path.splitext(source)[1].lower()
  if os.path.isdir(source):
    yield list_folder(source)
  elif suffix == '.zip':
    yield _zip_files(os.path.abspath(source))
  elif suffix == '.rar':
    with tempfile.TemporaryDirectory(prefix='vdm_') as folder:
      _unpack_rar(source, folder)
      yield list_folder(folder)
  else:
    raise shot_records.BuildError(
      f'{source} is neither a folder nor a .zip or .rar archive.'
    )


def list_folder(folder: str) -> list[File]:
  """Returns the regular files below a folder; links to folders stay out."""
  files = []
  for directory, subfolders, names in os.walk(folder):
    # Dot files are what other systems leave beside the real ones.
    subfolders[:] = sorted(n for n in subfolders if not n.startswith('.'))
    for name in names:
      path = os.path.join(directory, name)
      if name.startswith('.') or not os.path.isfile(path):
        continue
      relative = pathlib.Path(os.path.relpath(path, folder)).as_posix()
      relative = relative.encode('utf-8', 'backslashreplace').decode('utf-8')
      status = os.stat(path)
      opener = functools.partial(contextlib.nullcontext, path)
      files.append(File(relative, status.st_size, status.st_mtime_ns, opener))
  return sorted(files, key=lambda file: file.name)


def listing(source: str, suffixes: tuple[str, ...]) -> list:
  """Returns what tells two sources apart without reading their content.

  Args:
    source: a folder or an archive.
    suffixes: of the files that count, lower case.
  """
  if os.path.isdir(source):
    return [
      [file.name, file.size]
      for file in list_folder(source)
      if file.name.lower().endswith(suffixes)
    ]
  return [[os.path.basename(source), os.path.getsize(source)]]


def check_names(names: Sequence[str], archive: str) -> None:
  """Raises BuildError if a member could be written outside its folder."""
  for name in names:
    parts = name.replace('\\', '/').split('/')
    if parts[0] == '' or ':' in parts[0] or '..' in parts or '\0' in name:
      raise shot_records.BuildError(
        f'{archive} has the unsafe member name {name!r}; nothing was unpacked.'
      )


def _zip_files(path: str) -> list[File]:
  members = [m for m in _archive(path).infolist() if not m.is_dir()]
  _check_members(members, path)
  time_ns = os.stat(path).st_mtime_ns
  return sorted(
    (
      File(
        m.filename,
        m.file_size,
        time_ns,
        functools.partial(_extracted, path, m.filename),
      )
      for m in members
      if not os.path.basename(m.filename).startswith('.')
    ),
    key=lambda file: file.name,
  )


@functools.lru_cache(maxsize=2)
def _open_archive(path: str, time_ns: int) -> zipfile.ZipFile:
  del time_ns  # Another version is another archive.
  return zipfile.ZipFile(path)


def _archive(path: str) -> zipfile.ZipFile:
  """Returns an archive, opened once in each process."""
  try:
    return _open_archive(path, os.stat(path).st_mtime_ns)
  except zipfile.BadZipFile as error:
    raise shot_records.BuildError(
      f'{path} is no .zip archive: {error}'
    ) from error


def _check_members(members: Sequence[zipfile.ZipInfo], path: str) -> None:
  check_names([m.filename for m in members], path)

  def refuse(member, why):
    raise shot_records.BuildError(
      f'{path}: member {member.filename!r} {why}; nothing was unpacked.'
    )

  seen, total = set(), 0
  for member in members:
    mode = member.external_attr >> 16
    total += member.file_size
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
      refuse(member, 'is a link or a device')
    if member.flag_bits & 1:
      refuse(member, 'is encrypted')
    if member.filename in seen:
      refuse(member, 'is there twice')
    if member.file_size > _MAX_RATIO * (member.compress_size + 4096):
      refuse(member, f'unpacks to {member.file_size} bytes, like a bomb')
    if member.file_size > _MAX_FILE_BYTES or total > _MAX_TOTAL_BYTES:
      refuse(member, f'makes {total} bytes, more than is accepted')
    seen.add(member.filename)


@contextlib.contextmanager
def _extracted(path: str, member: str) -> Iterator[str]:
  """Yields the path of a temporary file with a member's content."""
  suffix = os.path.splitext(member)[1]
  with tempfile.NamedTemporaryFile(prefix='vdm_', suffix=suffix) as file:
    try:
      # ZipFile stops at the declared size and verifies the checksum.
      with _archive(path).open(member) as content:
        shutil.copyfileobj(content, file, 1 << 20)
      file.flush()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
      raise decoding.VideoError(
        'undecodable', f'the archive is damaged there: {e}'
      ) from e
    yield file.name


def _unpack_rar(path: str, folder: str) -> None:
  program = next(filter(shutil.which, _UNPACKERS), None)
  if program is None:
    raise shot_records.BuildError(
      'Nothing here unpacks .rar: run `sudo apt-get install unrar`, or unpack'
      f' it elsewhere with `unrar x {os.path.basename(path)}` and set'
      ' data.source to the folder.'
    )
  path = os.path.abspath(path)
  unpacker = _UNPACKERS[program]
  names = _run([program, *unpacker.names, path], folder).splitlines()
  check_names(names, path)
  largest = _check_details(
    _run([program, *unpacker.details, path], folder), unpacker, path
  )
  _run([program, *unpacker.extract, path], folder, largest)
  for directory, subfolders, files in os.walk(folder):
    for name in (*subfolders, *files):
      if os.path.islink(os.path.join(directory, name)):
        raise shot_records.BuildError(f'{path} holds the link {name!r}.')


def _check_details(listing: str, unpacker: _Unpacker, path: str) -> int:
  """Refuses links, devices and bombs; returns the largest member's bytes."""

  def refuse(what):
    raise shot_records.BuildError(f'{path} {what}; nothing was unpacked.')

  for kind in re.findall(unpacker.kind, listing, re.MULTILINE):
    if kind not in unpacker.kinds:
      refuse(f'holds a link or a device ({kind})')
  sizes = [int(n) for n in re.findall(unpacker.size, listing, re.MULTILINE)]
  if not sizes:
    refuse('does not tell the sizes of its members')
  total = sum(sizes)
  if total > _MAX_RATIO * (os.path.getsize(path) + 4096 * len(sizes)):
    refuse(f'unpacks to {total} bytes, like a bomb')
  if max(sizes) > _MAX_FILE_BYTES or total > _MAX_TOTAL_BYTES:
    refuse(f'makes {total} bytes, more than is accepted')
  return max(sizes)


def _run(command: list[str], folder: str, largest: int = 0) -> str:
  """Returns what a command says; it can write no file above `largest`."""

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

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
    raise shot_records.BuildError(f'`{" ".join(command)}` failed: {lines[-1]}')
  return result.stdout
