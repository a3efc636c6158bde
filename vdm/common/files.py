"""Writes files that are never seen half written.

Each file is written beside its place under a temporary name and renamed when it
is whole. On object stores, where a rename is a copy, an upload is atomic by
itself.
"""

from collections.abc import Iterator, Mapping
import contextlib
import io
import json
import os
from typing import Any, BinaryIO

from etils import epath
import numpy as np


@contextlib.contextmanager
def replaced(path: epath.PathLike) -> Iterator[BinaryIO]:
  """Yields a binary file that takes the place of `path` once it is whole.

  If the body raises, `path` stays as it was and nothing is left behind.
  """
  path = epath.Path(path)
  # Two processes may write the same file after a restart.
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with partial.open('wb') as file:
      yield file
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Writes a file whole or not at all."""
  with replaced(path) as file:
    file.write(data)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a UTF-8 text file whole or not at all."""
  write_bytes(path, text.encode())


def write_json(path: epath.PathLike, content: Any, **options: Any) -> None:
  """Writes JSON with an indent of two and a final newline."""
  write_text(path, json.dumps(content, indent=2, **options) + '\n')


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Returns the bytes of an uncompressed .npz file, without pickle."""
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def write_npz(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays by name, uncompressed and without pickle."""
  # In memory first: zip archives seek, which files on object stores cannot.
  write_bytes(path, npz_bytes(arrays))
