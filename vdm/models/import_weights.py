"""Reads pretrained weights, and nothing but tensors, from untrusted files.

The format is detected from the content: safetensors, PyTorch (`torch_files`),
or `.npz` (TensorFlow's variables, converted once). None of the readers can run
code from a file, and none uses more memory than a few times the file's size.
Weights are identified by their sha256, not by their source.
"""

import hashlib
import io
import json
import math
import pathlib
import posixpath
import struct
from typing import Any, NamedTuple
import zipfile
import zlib

from absl import logging
from etils import epath
import numpy as np

from vdm.common import buckets
from vdm.common import errors
from vdm.common import hub
from vdm.common import trees
from vdm.models import pickles
from vdm.models import safetensors
from vdm.models import torch_files

MAX_CONFIG = 1_000_000  # Bytes of a config.json.
HUB_FILE = 'diffusion_pytorch_model.safetensors'  # The default.
# What reading corrupt bytes may raise.
READ_ERRORS = (
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


class WeightsError(errors.UsageError):
  """Weights cannot be read; the message is one sentence."""


class Weights(NamedTuple):
  """The content of a file.

  Attributes:
    tensors: {name in the file: array}, floating-point ones as float32.
    sha256: of the file, hexadecimal.
    layout: safetensors | torch | torchscript | npz.
  """

  tensors: dict[str, np.ndarray]
  sha256: str
  layout: str


def read(source: epath.PathLike, sha256: str = '') -> Weights:
  """Reads a file of weights.

  Args:
    source: a path, or a file on the Hugging Face hub at a revision (commit or
      tag), as hf://owner/name@revision/path; without a path its
      diffusion_pytorch_model.safetensors.
    sha256: expected of the file, hexadecimal; '' accepts any.

  Raises:
    WeightsError: the file does not exist, does not match `sha256`, is corrupt,
      or contains anything but tensors.
    UsageError: it could not be downloaded.
  """
  if hub.is_on_hub(str(source)):
    path = hub.fetch(*hub.split_file(str(source), HUB_FILE))
  else:
    path = buckets.given(source, 'weights')
  if path is None or not path.is_file():
    raise WeightsError(f'There is no file of weights {source}.')
  data = path.read_bytes()
  found = hashlib.sha256(data).hexdigest()
  if sha256 and sha256 != found:
    raise WeightsError(
      f'{source} has sha256 {found}, not {sha256}: it is another file than '
      'the expected one, or corrupt.'
    )
  try:
    tensors, layout = parse(data)
  except READ_ERRORS as error:
    known = isinstance(error, pickles.FormatError)
    why = error if known else f'it is corrupt ({type(error).__name__}: {error})'
    raise WeightsError(f'{source} is refused: {why}.') from None
  logging.info('Weights %s: %d tensors, sha256 %s', source, len(tensors), found)
  return Weights(tensors, found, layout)


def read_files(sources: str, sha256: str = '') -> list[Weights]:
  """Reads files joined by commas; their hashes are in the same order."""
  paths = [path.strip() for path in sources.split(',')]
  hashes = [part.strip() for part in sha256.split(',')]
  if hashes == ['']:
    hashes *= len(paths)
  if len(hashes) != len(paths):
    raise WeightsError(
      f'{sources} needs one sha256 for each file, or none, not {len(hashes)}.'
    )
  return [read(path, part) for path, part in zip(paths, hashes)]


def read_config(
  source: epath.PathLike, name: str = 'config.json'
) -> dict[str, Any] | None:
  """Reads the `config.json` beside a file of weights.

  Args:
    source: of the weights, see `read`.
    name: of the file, relative to the folder of the weights.

  Returns:
    Its content, None if there is no such file.

  Raises:
    WeightsError: it is not a JSON object, or larger than any description.
    UsageError: it could not be downloaded, or not be asked for.
  """
  if hub.is_on_hub(str(source)):
    path = _beside_on_hub(str(source), name)
  else:
    path = buckets.given(source, 'weights').parent / name
  if path is None or not path.is_file():
    return None
  with path.open('rb') as file:
    data = file.read(MAX_CONFIG + 1)
  try:
    if len(data) > MAX_CONFIG:
      raise pickles.FormatError(f'it has more than {MAX_CONFIG} bytes')
    content = json.loads(data, object_pairs_hook=safetensors.unique)
  except READ_ERRORS as error:
    raise WeightsError(f'{path} is refused: {error}.') from None
  if not isinstance(content, dict):
    raise WeightsError(f'{path} is refused: it is not a JSON object.')
  return content


def match(
  source: epath.PathLike,
  flat: dict[str, np.ndarray],
  abstract: dict[str, Any],
) -> dict[str, Any]:
  """Checks that arrays are exactly the parameters of a network.

  Args:
    source: named in the error.
    flat: {'/'-joined path: array}.
    abstract: the network's parameters, a nested dict of shapes.

  Returns:
    The parameters as a nested dict of float32 arrays.

  Raises:
    WeightsError: a parameter is missing, unknown or of another shape.
  """
  expected = trees.flatten(abstract)
  for path in sorted(expected.keys() | flat.keys()):
    found = flat[path].shape if path in flat else 'missing'
    shape = expected[path].shape if path in expected else 'nothing of that name'
    if found != shape:
      raise WeightsError(
        f'{source} is of another network: {path[:200]} is {found}, not {shape}.'
      )
  return trees.unflatten(
    {k: np.asarray(v, np.float32) for k, v in flat.items()}
  )


def parse(data: bytes) -> tuple[dict[str, np.ndarray], str]:
  """Reads the tensors of a file's bytes.

  Returns:
    ({name: array}, layout), as in `Weights`.

  Raises:
    FormatError: it contains what is not allowed; READ_ERRORS: it is corrupt.
  """
  # The first bytes of safetensors are a length, which can be those of any
  # other format: it comes first, as no other one fits its length and brace.
  if safetensors.has_header(data):
    tensors, layout = safetensors.parse(data), 'safetensors'
  elif data[:4] == b'PK\x03\x04':
    archive = torch_files.open_archive(data)
    if all(name.endswith('.npy') for name in archive.namelist()):
      tensors, layout = _npz(archive), 'npz'
    else:
      tensors, script = torch_files.read_archive(archive)
      layout = 'torchscript' if script else 'torch'
  elif pickles.is_pickle(data):
    tensors, layout = torch_files.read_legacy(data), 'torch'
  elif data[8:9] == b'{':
    raise pickles.FormatError('its header claims more bytes than it has')
  else:
    raise pickles.FormatError(
      'it is neither safetensors nor a PyTorch file nor .npz'
    )
  if not tensors:
    raise pickles.FormatError('it has no tensors')
  return {k: _as_float32(k, v) for k, v in tensors.items()}, layout


def _beside_on_hub(source, name):
  """Returns the path of a file beside one on the hub, None if there is none."""
  repo, revision, file = hub.split_file(source, HUB_FILE)
  file = posixpath.normpath(pathlib.PurePosixPath(file).parent / name)
  # Above the weights at the top of a repository there is nothing.
  return None if file.startswith('../') else hub.fetch(repo, revision, file)


def _as_float32(name, array):
  # bfloat16 has none of NumPy's kinds of numbers.
  if array.dtype.kind in 'iub':
    return np.asarray(array, order='C')
  with np.errstate(over='ignore'):
    array = np.asarray(array, np.float32, order='C')
  if not np.isfinite(array).all():
    raise pickles.FormatError(
      f'its tensor {name[:80]} has values that are not finite'
    )
  return array


def _npz(archive):
  """Reads numeric arrays of NumPy's format, and refuses pickled ones."""
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
        f'its array {name[:80]} does not have the size it claims'
      )
    tensors[name] = np.frombuffer(body, dtype).reshape(
      shape, order='F' if fortran else 'C'
    )
  return tensors
