"""Videos on the page of a notebook, as HTML that holds the files themselves.

The page then shows them wherever it is opened, without the folder they came
from. A page of tens of megabytes makes browsers and notebooks slow, so what it
holds is limited; the files stay as they are.
"""

import base64
from collections.abc import Sequence
import io
import os
import zipfile

from etils import epath

from vdm.media import page

LIMIT = 16 * 2**20  # Bytes of files that one page holds, at most.
_TYPES = {'.mp4': 'video/mp4', '.gif': 'image/gif'}


def players(paths: Sequence[epath.PathLike], limit: int = LIMIT) -> str:
  """Returns HTML that plays mp4 and GIF files side by side, in a loop.

  Args:
    paths: the files.
    limit: bytes of files to show, the first ones first; the others are counted.

  Raises:
    ValueError: a file is neither mp4 nor GIF.
  """
  shown, size = [], 0
  for path in map(epath.Path, paths):
    if path.suffix not in _TYPES:
      raise ValueError(f'{path} is neither an mp4 nor a GIF file.')
    data = path.read_bytes()
    size += len(data)
    if size > limit:
      break
    shown.append(_player(path, data))
  left = len(paths) - len(shown)
  folder = epath.Path(paths[0]).parent if paths else ''
  note = f'{left} more are in {folder}: a page of all would be slow.'
  return (
    '<div style="display: flex; flex-wrap: wrap; gap: 8px">'
    f'{"".join(shown)}</div>{page.paragraph(note) if left else ""}'
  )


def download(folder: epath.PathLike, limit: int = LIMIT) -> str:
  """Returns HTML that says where files are, with a link to a zip of them.

  Args:
    folder: its files are offered, folders in it are not.
    limit: bytes of the zip, above which there is no link.
  """
  folder = epath.Path(folder)
  saved = f'<p>Saved in {page.text(folder)}'
  buffer = io.BytesIO()
  # Stored: videos and images are compressed already.
  with zipfile.ZipFile(buffer, 'w') as archive:
    for path in sorted(x for x in folder.iterdir() if x.is_file()):
      archive.writestr(f'{folder.name}/{path.name}', path.read_bytes())
  if len(buffer.getvalue()) > limit:
    return f'{saved}.</p>'
  address = _address('application/zip', buffer.getvalue())
  name = page.text(f'{folder.name}.zip')
  return f'{saved}: <a download="{name}" href="{address}">{name}</a></p>'


def _player(path: epath.Path, data: bytes) -> str:
  name = page.text(os.path.splitext(path.name)[0])
  source = f'src="{_address(_TYPES[path.suffix], data)}"'
  if path.suffix == '.gif':
    return f'<img alt="{name}" {source}>'
  # Browsers play by themselves only what is muted.
  return (
    f'<video title="{name}" {source} autoplay loop muted playsinline controls '
    'style="max-width: 100%"></video>'
  )


def _address(kind: str, data: bytes) -> str:
  return f'data:{kind};base64,{base64.b64encode(data).decode()}'
