"""Reads pretrained weights: tensors and nothing else, whatever the file.

A file is known by its content: safetensors, PyTorch (`torch_files`), or `.npz`
(TensorFlow's variables, converted once). None of the readers can run code from
a file, and none takes more memory than a few times the file's size. Where
weights come from decides nothing; their sha256 does.
"""

import hashlib
import io
import json
import math
import re
import struct
from typing import NamedTuple
import zipfile
import zlib

from absl import logging
from etils import epath
from flax import traverse_util
import jax.numpy as jnp
import numpy as np

from vdm.models import pickles
from vdm.models import torch_files

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
HUB_FILE = 'diffusion_pytorch_model.safetensors'  # Where none is named.
# What reading damaged bytes may raise.
DAMAGE = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  NotImplementedError,
  RecursionError,
  TypeError,
  ValueError,
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
)


class WeightsError(ValueError):
  """Weights cannot be read, and why, in one sentence."""


class Weights(NamedTuple):
  """What a file holds.

  Attributes:
    tensors: {name in the file: array}, floats as float32.
    sha256: of the file, hexadecimal.
    layout: safetensors | torch | torchscript | npz.
  """

  tensors: dict[str, np.ndarray]
  sha256: str
  layout: str


def read(source, sha256='') -> Weights:
  """Reads a file of weights.

  Args:
    source: a path, or a file on the Hugging Face hub at a revision (commit or
      tag), as hf://owner/name@revision/path; without a path its
      diffusion_pytorch_model.safetensors.
    sha256: what the file's must be, hexadecimal; '' to take any.

  Raises:
    WeightsError: there is no such file, it is not the one that is expected,
      it is damaged, or it holds anything but tensors.
  """
  path = epath.Path(_download(source) if _on_hub(source) else source)
  if not path.is_file():
    raise WeightsError(f'There is no file of weights {path}.')
  data = path.read_bytes()
  found = hashlib.sha256(data).hexdigest()
  if sha256 and sha256 != found:
    raise WeightsError(
      f'{source} has sha256 {found}, not {sha256}: it is another file than '
      'the one that is expected, or it is damaged.'
    )
  try:
    tensors, layout = parse(data)
  except DAMAGE as error:
    known = isinstance(error, pickles.FormatError)
    why = error if known else f'it is damaged ({type(error).__name__}: {error})'
    raise WeightsError(f'{source} is refused: {why}.') from None
  logging.info('Weights %s: %d tensors, sha256 %s', source, len(tensors), found)
  return Weights(tensors, found, layout)


def match(source, flat, abstract):
  """Checks that arrays are all the parameters of a network, and no more.

  Args:
    source: named in the error.
    flat: {'/'-joined path: array}.
    abstract: the network's parameters, a nested dict of shapes.

  Returns:
    The parameters as a nested dict of float32 arrays.
  """
  wanted = traverse_util.flatten_dict(abstract, sep='/')
  for path in sorted(wanted.keys() | flat.keys()):
    there = flat[path].shape if path in flat else 'missing'
    needed = wanted[path].shape if path in wanted else 'nothing of that name'
    if there != needed:
      raise WeightsError(
        f'{source} is of another network: {path[:200]} is {there}, not '
        f'{needed}.'
      )
  arrays = {k: np.asarray(v, np.float32) for k, v in flat.items()}
  return traverse_util.unflatten_dict(arrays, sep='/')


def parse(data):
  """Reads the tensors of a file's bytes.

  Returns:
    ({name: array}, layout), as in `Weights`.

  Raises:
    FormatError: what it holds is not admitted; or any of what damage leads
      to, see `read`.
  """
  if data[:4] == b'PK\x03\x04':
    archive = torch_files.open_archive(data)
    if all(name.endswith('.npy') for name in archive.namelist()):
      tensors, layout = _npz(archive), 'npz'
    else:
      tensors, script = torch_files.read_archive(archive)
      layout = 'torchscript' if script else 'torch'
  elif data[:1] == b'\x80':
    tensors, layout = torch_files.read_legacy(data), 'torch'
  elif data[8:9] == b'{':
    tensors, layout = _safetensors(data), 'safetensors'
  else:
    raise pickles.FormatError(
      'it is none of safetensors, a PyTorch file and .npz'
    )
  if not tensors:
    raise pickles.FormatError('it holds no tensors')
  return {k: _as_float32(k, v) for k, v in tensors.items()}, layout


def _as_float32(name, array):
  # bfloat16 is of no kind that NumPy knows.
  if array.dtype.kind in 'iub':
    return np.asarray(array, order='C')
  with np.errstate(over='ignore'):
    array = np.asarray(array, np.float32, order='C')
  if not np.isfinite(array).all():
    raise pickles.FormatError(
      f'its tensor {name[:80]} holds values that are not finite'
    )
  return array


def _safetensors(data):
  """Reads the safetensors format, strictly.

  Eight bytes with the length of a JSON header, the header {name: {dtype,
  shape, data_offsets}}, then the arrays without gaps.
  """
  length = int.from_bytes(data[:8], 'little')
  if length > min(MAX_HEADER, len(data) - 8):
    raise pickles.FormatError('its header claims more bytes than it has')
  header = json.loads(data[8 : 8 + length], object_pairs_hook=_no_twins)
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
    if any(type(n) is not int or n < 0 for n in (*shape, start, stop)):
      raise pickles.FormatError(f'its tensor {name[:80]} has no shape')
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


def _no_twins(pairs):
  result = dict(pairs)
  if len(result) < len(pairs):
    raise pickles.FormatError('its header has one name twice')
  return result


def _npz(archive):
  """Reads numeric arrays of NumPy's format, pickled ones refused."""
  headers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  tensors = {}
  for member in archive.namelist():
    name = member.removesuffix('.npy')
    data = torch_files.read_member(archive, member)
    stream = io.BytesIO(data)
    read_header = headers[np.lib.format.read_magic(stream)]
    shape, fortran, dtype = read_header(stream)
    if dtype.kind not in 'fiub':
      raise pickles.FormatError(
        f'its array {name[:80]} is of type {dtype}, not of numbers'
      )
    body = memoryview(data)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
      raise pickles.FormatError(
        f'its array {name[:80]} is not of the size it claims'
      )
    tensors[name] = np.frombuffer(body, dtype).reshape(
      shape, order='F' if fortran else 'C'
    )
  return tensors


def _on_hub(source):
  return str(source).startswith('hf://')


def _download(source):
  """Returns the path of a hub's file in the local cache."""
  match = re.fullmatch(
    r'hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w.-]+)(/(?P<file>.+))?',
    source,
  )
  if not match:
    raise WeightsError(
      f'{source} names no file on the hub: give hf://owner/name@revision/path, '
      'with a commit or tag as revision.'
    )
  try:
    import huggingface_hub
  except ImportError:
    raise WeightsError(
      f'{source} needs huggingface_hub: pip install huggingface_hub, or give '
      'the path of a file.'
    ) from None
  try:
    return huggingface_hub.hf_hub_download(
      match['repo'], match['file'] or HUB_FILE, revision=match['revision']
    )
  # Of the network, the library's own and the file system's.
  except (OSError, ValueError) as error:
    reason = str(error).strip().split('\n')[0]
    raise WeightsError(f'{source} could not be had: {reason}') from error
