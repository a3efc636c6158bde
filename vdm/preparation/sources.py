"""The files of a source: a folder or an archive."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile

from vdm.data.builders import build_plan
from vdm.preparation import archives


@dataclasses.dataclass(frozen=True)
class File:
  """One file of a source. Cheap to pickle.

  Attributes:
    name: path in the source, with forward slashes.
    size: bytes.
    time_ns: when it, or its archive, was last changed.
    open: returns a context in which the file lies at a path on disk. Another
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
    yield _list_zip(os.path.abspath(source))
  elif suffix == '.rar':
    with tempfile.TemporaryDirectory(prefix='vdm_') as folder:
      archives.unpack_rar(source, folder)
      yield list_folder(folder)
  else:
    raise build_plan.BuildError(
      f'{source} is neither a folder nor a .zip or .rar archive.'
    )


def list_folder(folder: str) -> list[File]:
  """Returns the regular files below a folder; links to folders are skipped."""
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


def listing(source: str, suffixes: tuple[str, ...]) -> list[list[str | int]]:
  """Returns [name, size] of the files, which distinguishes two sources.

  Of an archive it is that of the archive itself, which is not unpacked.

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


def _list_zip(path: str) -> list[File]:
  time_ns = os.stat(path).st_mtime_ns
  files = [
    File(
      member.filename,
      member.file_size,
      time_ns,
      functools.partial(archives.extracted, path, member.filename),
    )
    for member in archives.zip_members(path)
    if not os.path.basename(member.filename).startswith('.')
  ]
  return sorted(files, key=lambda file: file.name)
