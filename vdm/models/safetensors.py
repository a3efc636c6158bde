"""The safetensors format: tensors under names, and nothing else.

Eight bytes with the length of a JSON header, the header {name: {dtype, shape,
data_offsets}}, then the arrays one after the other
(https://github.com/huggingface/safetensors). The library of that name is not
needed; what it writes is read here, and the reverse.
"""

from collections.abc import Mapping
import json
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from vdm.models import pickles

DTYPES = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(jnp.bfloat16),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
  'I16': np.dtype('<i2'),
  'I8': np.dtype('i1'),
  'U8': np.dtype('u1'),
  'BOOL': np.dtype('?'),
}
MAX_HEADER = 100_000_000  # Bytes; the limit of the safetensors library.
MAX_RANK = 32  # More axes than any tensor has.
ALIGNMENT = 8  # Bytes; the arrays begin at a multiple, as the library's do.


def has_header(data: bytes) -> bool:
  """Returns whether bytes start like safetensors: a length, a JSON object."""
  length = int.from_bytes(data[:8], 'little')
  return data[8:9] == b'{' and length <= min(MAX_HEADER, len(data) - 8)


def parse(data: bytes) -> dict[str, np.ndarray]:
  """Reads the tensors of bytes that `has_header`, strictly.

  Returns:
    {name: array of the file's dtype}, views of `data`.

  Raises:
    FormatError: the header does not fit the bytes; errors of `json` and of
      wrong types, see `import_weights.READ_ERRORS`: it is corrupt.
  """
  length = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + length], object_pairs_hook=unique)
  header.pop('__metadata__', None)
  body = memoryview(data)[8 + length :]
  tensors, end = {}, 0
  for name, entry in sorted(
    header.items(), key=lambda item: item[1]['data_offsets']
  ):
    if entry['dtype'] not in DTYPES:
      raise pickles.FormatError(
        f'its tensor {name[:80]} is of type {str(entry["dtype"])[:20]}'
      )
    dtype, shape = DTYPES[entry['dtype']], entry['shape']
    start, stop = entry['data_offsets']
    if len(shape) > MAX_RANK or any(
      type(n) is not int or n < 0 for n in (*shape, start, stop)
    ):
      raise pickles.FormatError(f'its tensor {name[:80]} has an invalid shape')
    size = math.prod(shape) * dtype.itemsize
    if start != end or stop - start != size or stop > len(body):
      raise pickles.FormatError(
        f'its tensor {name[:80]} is not where the header says'
      )
    tensors[name] = np.frombuffer(body[start:stop], dtype).reshape(shape)
    end = stop
  if end != len(body):
    raise pickles.FormatError('it has bytes that belong to no tensor')
  return tensors


def to_bytes(
  tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> bytes:
  """Returns the bytes of a file, which depend on the arguments alone.

  Args:
    tensors: by name; of DTYPES.
    metadata: of the file, text by name.
  """
  names = {dtype: name for name, dtype in DTYPES.items()}
  header, parts, end = {'__metadata__': dict(metadata)}, [], 0
  for name in sorted(tensors):
    array = np.asarray(tensors[name])
    start, end = end, end + array.nbytes
    header[name] = {
      'dtype': names[array.dtype],
      'shape': list(array.shape),
      'data_offsets': [start, end],
    }
    parts.append(array.tobytes())
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % ALIGNMENT)
  return b''.join([len(text).to_bytes(8, 'little'), text, *parts])


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns the dict of a JSON object, as `object_pairs_hook`.

  Raises:
    FormatError: a name is there twice.
  """
  result = dict(pairs)
  if len(result) < len(pairs):
    raise pickles.FormatError('it has a name twice')
  return result
