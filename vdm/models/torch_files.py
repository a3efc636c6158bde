"""Reads the tensors of PyTorch files without PyTorch.

Such a file is a pickle (`pickles`) and raw arrays, in a zip archive (`.pth`,
`.pt`, TorchScript) or, before PyTorch 1.6, in one stream.

Formats: torch/serialization.py and torch/csrc/jit/serialization/pickler.cpp.
"""

import io
import math
import re
from typing import Any
import zipfile

import numpy as np

from vdm.models import pickles

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Bounds on what a pickle describes, far above any network: parts of it can be
# shared, so a small pickle can describe an endless tree.
MAX_DEPTH, MAX_VALUES = 32, 100_000
MAX_PATH = 300  # Characters of a name with those of all that it is in.
MAX_GROWTH = 8  # Uncompressed over compressed size of an archive's member.


def read_archive(
  archive: zipfile.ZipFile,
) -> tuple[dict[str, np.ndarray], bool]:
  """Reads the tensors of a zip archive that `open_archive` opened.

  Returns:
    ({name: array}, whether it is TorchScript).
  """
  names = archive.namelist()
  mains = [name for name in names if re.fullmatch(r'[^/]+/data\.pkl', name)]
  if len(mains) != 1:
    raise pickles.FormatError('it does not have exactly one data.pkl')
  root = mains[0].removesuffix('/data.pkl')
  order = f'{root}/byteorder'
  if order in names and read_member(archive, order) != b'little':
    raise pickles.FormatError('its numbers are big-endian')
  found = find_tensors(
    pickles.interpret(io.BytesIO(read_member(archive, f'{root}/data.pkl')))
  )
  buffers = {
    key: read_member(archive, f'{root}/data/{key}')
    for key in {tensor.storage.key for tensor in found.values()}
  }
  return to_arrays(found, buffers), f'{root}/constants.pkl' in names


def read_legacy(data: bytes) -> dict[str, np.ndarray]:
  """Reads the tensors of a file written before PyTorch 1.6, by name."""
  stream = io.BytesIO(data)
  if pickles.interpret(stream) != LEGACY_MAGIC:
    raise pickles.FormatError('it is a pickle, but not one of PyTorch')
  pickles.interpret(stream)  # The version of the protocol.
  if not pickles.interpret(stream)['little_endian']:
    raise pickles.FormatError('its numbers are big-endian')
  found = find_tensors(pickles.interpret(stream))
  storages = {tensor.storage.key: tensor.storage for tensor in found.values()}
  buffers = {}
  for key in pickles.interpret(stream):
    size = int.from_bytes(stream.read(8), 'little')
    # The width of its elements is known from the tensors that use it.
    if key not in storages:
      raise pickles.FormatError('it has data that belongs to no tensor')
    buffers[key] = stream.read(size * storages[key].dtype.itemsize)
  return to_arrays(found, buffers)


def open_archive(data: bytes) -> zipfile.ZipFile:
  """Opens a zip archive whose members have unique names."""
  archive = zipfile.ZipFile(io.BytesIO(data))
  members = archive.infolist()
  if len({member.filename for member in members}) < len(members):
    raise pickles.FormatError('it has two members with the same name')
  if sum(member.compress_size for member in members) > len(data):
    raise pickles.FormatError('its members claim more bytes than it has')
  return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
  """Reads a member and verifies its checksum.

  Tensors are stored uncompressed, and numbers compress little: a member that
  grows by more than MAX_GROWTH is an attack on the memory.
  """
  member = archive.getinfo(name)
  known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
  if member.compress_type not in known or member.flag_bits & 1:
    raise pickles.FormatError(
      f'its member {name[:80]} is encrypted or compressed in an unsupported way'
    )
  if member.file_size > MAX_GROWTH * member.compress_size:
    raise pickles.FormatError(
      f'its member {name[:80]} claims to grow more than {MAX_GROWTH} times'
    )
  return archive.read(member)


def find_tensors(value: Any) -> dict[str, pickles.Tensor]:
  """Collects {'.'-joined name: tensor} from dicts, lists and modules."""
  found, visited, pending = {}, 0, [('', value, 0)]
  while pending:
    name, value, depth = pending.pop()
    visited += 1
    if visited > MAX_VALUES or depth > MAX_DEPTH or len(name) > MAX_PATH:
      raise pickles.FormatError('it nests deeper than any network')
    if isinstance(value, pickles.Module):
      value = value.state
    if isinstance(value, pickles.Tensor):
      found[name] = value
      continue
    if not isinstance(value, dict | list | tuple):
      continue
    # Before its parts get names: it may hold itself thousands of times.
    if visited + len(pending) + len(value) > MAX_VALUES:
      raise pickles.FormatError('it holds more values than any network')
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    pending += [
      (f'{name}.{key}' if name else str(key), part, depth + 1)
      for key, part in reversed(list(parts))
    ]
  return found


def to_arrays(
  found: dict[str, pickles.Tensor], buffers: dict[str, bytes]
) -> dict[str, np.ndarray]:
  """Returns tensors as views into their storages.

  Args:
    found: the tensors by name.
    buffers: {key of a `pickles.Storage`: its bytes}.

  Returns:
    {name: array}, with no more elements in all than the storages have bytes.
  """
  budget = sum(map(len, buffers.values()))
  arrays = {}
  for name, tensor in found.items():
    storage, offset, shape, strides = tensor
    data, itemsize = buffers[storage.key], storage.dtype.itemsize
    if len(data) != storage.size * itemsize:
      raise pickles.FormatError(
        f'its storage {storage.key[:20]} does not have the declared size'
      )
    size = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    budget -= size
    if (size and last >= storage.size) or budget < 0:
      raise pickles.FormatError(
        f'its tensor {name[:80]} is larger than its storage'
      )
    flat = np.frombuffer(data, storage.dtype)
    arrays[name] = np.lib.stride_tricks.as_strided(
      flat[offset:] if size else flat[:0],
      shape,
      [s * itemsize for s in strides],
      writeable=False,
    )
  return arrays
