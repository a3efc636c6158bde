"""The files of a source: a folder or an archive.

Every file is either usable or left out with a reason: hidden files and those
that systems and tools leave beside the real ones, links that lead outside of
the source, in circles or nowhere, and what is no file.
"""

from collections.abc import Callable, Collection, Iterator
import contextlib
import dataclasses
import functools
import os
import tempfile
from typing import NamedTuple

from vdm.data.builders import build_plan
from vdm.preparation import archives
from vdm.preparation import decoding

# Files that are decoded; what they really hold is for the decoder to say.
VIDEO_SUFFIXES = decoding.VIDEO_SUFFIXES
_OTHER_SUFFIXES = {
  'picture': ('.avif .bmp .heic .heif .jfif .jpeg .jpg .png .tif .tiff .webp'),
  'text': '.csv .html .json .jsonl .md .srt .sub .tsv .txt .vtt .xml .yaml',
  'sound': '.aac .flac .m4a .mp3 .oga .ogg .opus .wav .wma',
  'archive': '.7z .bz2 .gz .rar .tar .tgz .xz .zip',
}
_KIND = {
  suffix: kind
  for kind, suffixes in _OTHER_SUFFIXES.items()
  for suffix in suffixes.split()
}
# What systems and tools leave, besides names that start with a dot.
_HIDDEN = frozenset(
  (
    '__macosx',
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    '$recycle.bin',
    'system volume information',
    'lost+found',
    '@eadir',
  )
)


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


class Tree(NamedTuple):
  """The files of a source, each list sorted by name.

  Attributes:
    files: that can be used.
    skipped: files, and folders (their names end in a slash), left out.
  """

  files: list[File]
  skipped: list[build_plan.Skipped]

  def of_suffixes(self, suffixes: Collection[str]) -> 'Tree':
    """Returns the tree with only the files of these suffixes, lower case."""
    files, skipped = [], list(self.skipped)
    for file in self.files:
      suffix = os.path.splitext(file.name)[1].lower()
      if suffix in suffixes:
        files.append(file)
      else:
        skipped.append(_other_suffix(file.name, suffix))
    return Tree(files, sorted(skipped, key=lambda skip: skip.source))


@contextlib.contextmanager
def open_tree(source: str, *, follow_links: bool = False) -> Iterator[Tree]:
  """Yields the files of a folder or archive.

  Args:
    source: path of it.
    follow_links: also links that lead outside of the folder. Archives hold no
      links.

  Raises:
    BuildError: if the archive is unsafe, damaged or cannot be unpacked.
  """
  suffix = os.path.splitext(source)[1].lower()
  if os.path.isdir(source):
    yield read_folder(source, follow_links=follow_links)
  elif suffix == '.zip':
    yield _read_zip(os.path.abspath(source))
  elif suffix == '.rar':
    with tempfile.TemporaryDirectory(prefix='vdm_') as folder:
      archives.unpack_rar(source, folder)
      yield read_folder(folder)
  else:
    raise build_plan.BuildError(
      f'{source} is neither a folder nor a .zip or .rar archive.'
    )


def read_folder(folder: str, *, follow_links: bool = False) -> Tree:
  """Returns the files below a folder; see `open_tree`.

  Links inside the folder are followed, and a folder is entered through one link
  at most, so that circles end.
  """
  files, skipped = [], []
  root = os.path.realpath(folder)
  entered = set()  # Real paths of the folders that links led to.
  # Path and name of each folder to read, real paths of it and its parents.
  waiting = [(folder, '', frozenset([root]))]
  while waiting:
    path, prefix, above = waiting.pop()
    try:
      names = os.listdir(path)
    except OSError as error:
      message = f'the folder cannot be read: {error.strerror}'
      skipped.append(build_plan.Skipped(prefix, 'unreadable', message))
      continue
    folders = []
    for entry in sorted(names):
      inner = os.path.join(path, entry)
      is_folder = os.path.isdir(inner)
      name = prefix + _printable(entry) + '/' * is_folder
      is_link = os.path.islink(inner)
      real = os.path.realpath(inner) if is_folder else ''
      problem = _hidden(name) if is_hidden(entry) else None
      if not problem and is_link:
        problem = _link_problem(name, inner, root, follow_links)
      if not problem and is_folder:
        if real in above or (is_link and real in entered):
          problem = build_plan.Skipped(
            name, 'repeated_link', f'{_printable(real)} is read already'
          )
      elif not problem and not os.path.isfile(inner):
        problem = build_plan.Skipped(name, 'no_file', 'a device or a pipe')
      if problem:
        skipped.append(problem)
      elif is_folder:
        if is_link:
          entered.add(real)
        folders.append((inner, name, above | {real}))
      else:
        status = os.stat(inner)
        opener = functools.partial(contextlib.nullcontext, inner)
        files.append(File(name, status.st_size, status.st_mtime_ns, opener))
    waiting += reversed(folders)
  return Tree(
    sorted(files, key=lambda file: file.name),
    sorted(skipped, key=lambda skip: skip.source),
  )


def list_folder(folder: str, *, follow_links: bool = False) -> list[File]:
  """Returns the usable files below a folder, sorted by name."""
  return read_folder(folder, follow_links=follow_links).files


def listing(
  source: str, suffixes: Collection[str], *, follow_links: bool = False
) -> list[list[str | int]]:
  """Returns [name, size] of the files, which distinguishes two sources.

  Of an archive it is that of the archive itself, which is not unpacked.

  Args:
    source: a folder or an archive.
    suffixes: of the files that count, lower case.
    follow_links: see `open_tree`.
  """
  if os.path.isdir(source):
    tree = read_folder(source, follow_links=follow_links)
    return [[file.name, file.size] for file in tree.of_suffixes(suffixes).files]
  return [[os.path.basename(source), os.path.getsize(source)]]


def is_hidden(name: str) -> bool:
  """Returns whether a file or folder is one that people do not see."""
  return name.startswith('.') or name.lower() in _HIDDEN


def _read_zip(path: str) -> Tree:
  time_ns = os.stat(path).st_mtime_ns
  files, skipped = [], {}
  for member in archives.zip_members(path):
    parts = member.filename.replace('\\', '/').split('/')
    parts = [part for part in parts if part not in ('', '.')]
    hidden = next((i for i, part in enumerate(parts) if is_hidden(part)), None)
    if hidden is not None:
      # A hidden folder is named once.
      slash = '/' * (hidden < len(parts) - 1)
      name = '/'.join(parts[: hidden + 1]) + slash
      skipped[name] = _hidden(name)
      continue
    opener = functools.partial(archives.extracted, path, member.filename)
    files.append(File('/'.join(parts), member.file_size, time_ns, opener))
  return Tree(
    sorted(files, key=lambda file: file.name),
    [skipped[name] for name in sorted(skipped)],
  )


def _hidden(name: str) -> build_plan.Skipped:
  return build_plan.Skipped(
    name, 'hidden', f'a hidden {"folder" if name.endswith("/") else "file"}'
  )


def _other_suffix(name: str, suffix: str) -> build_plan.Skipped:
  messages = {
    'picture': f'{suffix} is a picture: save an animation as .gif or .mp4',
    'archive': 'an archive inside the source: unpack it',
  }
  kind = _KIND.get(suffix, 'other_suffix')
  message = messages.get(
    kind, f'{suffix or "no suffix"} is not what a video is called'
  )
  return build_plan.Skipped(name, kind, message)


def _link_problem(
  name: str, path: str, root: str, follow_links: bool
) -> build_plan.Skipped | None:
  """Returns why a link is not followed; None if it is.

  Args:
    name: of the link, in the source.
    path: of the link.
    root: real path of the source.
    follow_links: see `open_tree`.
  """
  real = os.path.realpath(path)
  target = _printable(real)
  if not os.path.exists(path):
    return build_plan.Skipped(
      name, 'broken_link', f'it links to {target}, which is not there'
    )
  if (
    not follow_links
    and real != root
    and not real.startswith(os.path.join(root, ''))
  ):
    return build_plan.Skipped(
      name,
      'outside_link',
      f'it links to {target}, outside of the source: set'
      ' data.follow_links=True to follow it',
    )
  return None


def _printable(name: str) -> str:
  """Returns a name in which bytes that are no UTF-8 are escaped."""
  return name.encode('utf-8', 'backslashreplace').decode('utf-8')
