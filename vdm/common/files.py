"""Atomic writes: no reader ever sees a partial file.

Each file is written to a temporary name in the same folder and renamed when it
is complete. In a bucket, where renaming copies, it is collected in memory and
uploaded: an upload is atomic by itself.
"""

from collections.abc import Iterator, Mapping
import contextlib
import io
import json
import os
from typing import Any, BinaryIO

from etils import epath
import numpy as np

from vdm.common import buckets


@contextlib.contextmanager
def replaced(path: epath.PathLike) -> Iterator[BinaryIO]:
  """Yields a binary file that replaces `path` once it is complete.

  If the body raises, `path` is unchanged and no temporary file remains.
  """
  path = epath.Path(path)
  if buckets.is_remote(path):
    # Closing a file of gcsfs would upload what there is, after an error too.
    buffer = io.BytesIO()
    yield buffer
    path.write_bytes(buffer.getvalue())
    return
  # Two processes may write the same file after a restart.
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with partial.open('wb') as file:
      yield file
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Writes a file atomically."""
  with replaced(path) as file:
    file.write(data)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a UTF-8 text file atomically."""
  write_bytes(path, text.encode())


def write_json(path: epath.PathLike, content: Any, **options: Any) -> None:
  """Writes JSON atomically, with an indent of two and a final newline."""
  write_text(path, json.dumps(content, indent=2, **options) + '\n')


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Returns the bytes of an uncompressed .npz file, without pickle."""
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def write_npz(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes named arrays atomically, uncompressed and without pickle."""
  # In memory first: zip archives seek, and files on object stores cannot.
  write_bytes(path, npz_bytes(arrays))
