"""Weights are read from every format, and nothing in a file ever runs."""

import contextlib
import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

from absl import logging
from conftest import ROOT
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from vdm.common import errors
from vdm.models import import_weights
from vdm.models import pickles
from vdm.models import torch_files

GOLDEN = ROOT / 'tests/golden/weight_files'
FILES = ('tensors.safetensors', 'zip.pth', 'legacy.pth', 'script.pt')


def count(shape, first, dtype=np.float32):
  """The values of make_weight_files.py; all are exact in every type."""
  size = int(np.prod(shape))
  return (first + np.arange(size) / 4).reshape(shape).astype(dtype)


NAMED = {
  'single.weight': count((2, 3), 0.5),
  'half.weight': count((3, 2), -4.0),
  'brain.weight': count((4,), 10.0),
  'double.weight': count((2, 1, 2), 1.0),
  'steps': count((), 7, np.int64),
}
BASE = count((3, 4), 0.0)
VIEWS = NAMED | {
  'base': BASE,
  'transposed': BASE.T,
  'part': BASE[1:, 1:3],
  'parameter': BASE[0],
}
EXPECTED = {
  'tensors.safetensors': NAMED,
  'zip.pth': VIEWS,
  'legacy.pth': {f'state_dict.{k}': v for k, v in VIEWS.items()},
  'script.pt': {
    'scale': count((3,), -1.0),
    'layers.0.weight': count((2, 3), 0.5),
    'layers.0.steps': NAMED['steps'],
    'layers.1.weight': count((2, 3), 2.5),
    'layers.1.steps': NAMED['steps'],
  },
}
LAYOUTS = dict(zip(FILES, ('safetensors', 'torch', 'torch', 'torchscript')))


def assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].dtype == value.dtype, name
    np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize('name', FILES)
def test_files_of_the_libraries_are_read_exactly(name):
  weights = import_weights.read(GOLDEN / name)
  assert_equal(weights.tensors, EXPECTED[name])
  assert weights.layout == LAYOUTS[name]


@pytest.mark.oracle
def test_golden_files_are_what_the_libraries_write(tmp_path, monkeypatch):
  pytest.importorskip('torch')
  pytest.importorskip('safetensors')
  monkeypatch.syspath_prepend(ROOT / 'tests/golden')
  import make_weight_files

  monkeypatch.setattr(make_weight_files, 'FOLDER', tmp_path)
  make_weight_files.main()
  for name in FILES:
    weights = import_weights.read(tmp_path / name)
    assert_equal(weights.tensors, EXPECTED[name])


def test_numpy_archives_are_read_exactly(tmp_path):
  arrays = {
    'RGB/conv_3d/w': count((2, 3), 1.0),
    'fortran': np.asfortranarray(count((2, 3), 1.0)),
    'half': count((3,), 2.0, np.float16),
  }
  np.savez(tmp_path / 'a.npz', **arrays)
  np.savez_compressed(tmp_path / 'b.npz', **arrays)
  for name in ('a.npz', 'b.npz'):
    weights = import_weights.read(tmp_path / name)
    assert weights.layout == 'npz'
    assert_equal(weights.tensors, arrays | {'half': count((3,), 2.0)})


def test_the_hash_is_logged_returned_and_demanded(monkeypatch):
  lines = []
  monkeypatch.setattr(
    logging, 'info', lambda line, *values: lines.append(line % values)
  )
  path = GOLDEN / 'zip.pth'
  found = import_weights.read(path).sha256
  # sha256sum tests/golden/weight_files/tensors.safetensors
  assert import_weights.read(GOLDEN / 'tensors.safetensors').sha256 == (
    '8ff99f2f991ac13f77dc27010d962235c6d5188e8af36cce70affb18fe4f766a'
  )
  assert found in lines[0] and '9 tensors' in lines[0]
  import_weights.read(path, found)
  with pytest.raises(import_weights.WeightsError, match=f'has sha256 {found}'):
    import_weights.read(path, 'f' * 64)
  with pytest.raises(import_weights.WeightsError, match='no file of weights'):
    import_weights.read(GOLDEN / 'missing.pth')


# Files that would run code.


class Evil:
  """Unpickled, it runs a shell command."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.system, (f'echo ran > {self.marker}',)


def refused(tmp_path, data):
  """The one line with which a file of these bytes is refused."""
  path = tmp_path / 'weights.pth'
  path.write_bytes(data)
  with pytest.raises(import_weights.WeightsError) as error:
    import_weights.read(path)
  assert '\n' not in str(error.value)
  return str(error.value)


def replaced(name, member, data):
  """A golden archive with another member in place of one."""
  source = zipfile.ZipFile(GOLDEN / name)
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as target:
    for info in source.infolist():
      new = info.filename == member
      target.writestr(info.filename, data if new else source.read(info))
  return buffer.getvalue()


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('name', ['zip.pth', 'script.pt', 'legacy.pth', 'bare'])
def test_code_is_refused_and_does_not_run(name, protocol, tmp_path):
  marker = tmp_path / 'marker'
  evil = pickle.dumps({'weight': Evil(marker)}, protocol)
  pickle.loads(evil)  # It is real.
  assert marker.exists()
  marker.unlink()
  if name == 'bare':
    data = evil
  elif name == 'legacy.pth':
    # After the magic number, the version and the system's description.
    data = (GOLDEN / name).read_bytes()
    stream = io.BytesIO(data)
    for _ in range(3):
      pickle.load(stream)
    data = data[: stream.tell()] + evil + data[stream.tell() :]
  else:
    root = name.split('.')[0]
    data = replaced(name, f'{root}/data.pkl', evil)
  assert 'it asks to import posix.system' in refused(tmp_path, data)
  assert not marker.exists()


def as_archive(program):
  """An archive whose data.pkl is this pickle."""
  return replaced('zip.pth', 'zip/data.pkl', program)


@pytest.mark.parametrize(
  'program, words',
  [
    # Even naming a module would run it.
    (b'\x80\x02cevil_module\nthing\n.', 'import evil_module.thing'),
    (b'\x80\x02cbuiltins\neval\n(X\x03\x00\x00\x001+1tR.', 'builtins.eval'),
    (b'\x80\x04\x8c\x02os\x8c\x06system\x93.', 'import os.system'),
    (b'\x80\x02cnumpy\nndarray\n)\x81.', 'import numpy.ndarray'),
    (b'\x80\x02ctorch._utils\n_rebuild_tensor_v9\n.', 'rebuild_tensor_v9'),
    (b'\x80\x02(ios\nsystem\n.', 'the instruction INST'),
    (b'\x80\x02(cos\nsystem\no.', 'import os.system'),
    (b'\x80\x02\x82\x01.', 'the instruction EXT1'),
    # Calling a class of TorchScript, a storage, a string, a dict.
    (b'\x80\x02c__torch__\nA\n)R.', 'it calls __torch__.A'),
    (b'\x80\x02ctorch\nFloatStorage\n)R.', 'it calls torch.FloatStorage'),
    (b'\x80\x02X\x09\x00\x00\x00os.system)R.', 'it calls os.system'),
    (b'\x80\x02})R.', 'it calls {}'),
    (b'\x80\x02ccollections\nOrderedDict\n)\x81.', 'it creates objects'),
    (b'\x80\x02c__torch__\nA\nK\x01\x85\x81.', 'it creates objects'),
    # Changing what stands for a function.
    (b'\x80\x02ccollections\nOrderedDict\n}b.', 'it changes objects'),
    (b'\x80\x02K\x01Q.', 'is corrupt'),
    (b'\x80\x02N.', 'it has no tensors'),
    (b'\x80\x02]K\x01a.', 'it has no tensors'),
    (b'\x80\x02)K\x01a.', 'it appends to something other than a list'),
    (b'\x80\x02]K\x01K\x01s.', 'sets items of something other than a dict'),
    (b'\x80\x02})K\x01s.', 'a key that is not a name'),
    (b'\x80\x02}', 'is corrupt'),
    (b'not a pickle', 'is corrupt'),
  ],
)
def test_other_programs_are_refused(program, words, tmp_path, monkeypatch):
  (tmp_path / 'evil_module.py').write_text('raise SystemExit("it ran")')
  monkeypatch.syspath_prepend(tmp_path)
  before = set(sys.modules)
  assert words in refused(tmp_path, as_archive(program))
  assert 'evil_module' not in set(sys.modules) - before


def test_arrays_with_pickles_in_them_are_refused(tmp_path):
  marker = tmp_path / 'marker'
  np.savez(tmp_path / 'a.npz', weight=np.array([Evil(marker)], object))
  data = (tmp_path / 'a.npz').read_bytes()
  assert 'of type object, not of numbers' in refused(tmp_path, data)
  assert not marker.exists()


# Files that are damaged, or that claim more than they have.


@pytest.mark.parametrize('name', FILES)
def test_no_part_of_a_file_is_taken_for_one(name, tmp_path):
  data = (GOLDEN / name).read_bytes()
  for end in [*range(0, len(data), 37), len(data) - 1]:
    refused(tmp_path, data[:end])


def numpy_archive():
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **NAMED)
  return buffer.getvalue()


@pytest.mark.parametrize('name', [*FILES, 'compressed.npz'])
def test_flipped_bits_are_refused_or_harmless(name, tmp_path):
  if name in FILES:
    data, expected = (GOLDEN / name).read_bytes(), EXPECTED[name]
  else:
    data, expected = numpy_archive(), NAMED
  path = tmp_path / 'weights'
  path.write_bytes(data)
  sha256 = import_weights.read(path).sha256

  @settings(max_examples=150, deadline=None)
  @given(st.integers(0, 8 * len(data) - 1))
  def check(bit):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
      weights = import_weights.read(path)
    except import_weights.WeightsError as error:
      assert '\n' not in str(error)
    else:
      # Archives have checksums of all that is read, but for the names; the
      # other formats have none, and rely on the expected sha256.
      if name in ('zip.pth', 'script.pt'):
        assert_equal(weights.tensors, expected)
    with pytest.raises(import_weights.WeightsError, match='has sha256'):
      import_weights.read(path, sha256)

  check()


INSTRUCTIONS = (
  b'}])NK\x01K\x00\x88(t\x85\x86\x87sua.eRQb\x81q\x00q\x01h\x00h\x01\x94'
)
CHUNKS = st.sampled_from(
  [bytes([c]) for c in INSTRUCTIONS]
  + [
    b'ccollections\nOrderedDict\n',
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'ctorch._utils\n_rebuild_parameter\n',
    b'ctorch\nFloatStorage\n',
    b'c__torch__\nA\n',
    b'X\x07\x00\x00\x00storage',
    b'X\x01\x00\x00\x000',
    b'X\xff\xff\xff\x7f0',
    b'r\xff\xff\xff\xff',
    b'\x8a\x08' + b'\xff' * 7 + b'\x7f',
  ]
)


def test_random_programs_end_in_tensors_or_in_a_sentence():
  @settings(max_examples=400, deadline=None)
  @given(st.lists(CHUNKS, max_size=40))
  def check(chunks):
    stream = io.BytesIO(b'\x80\x02' + b''.join(chunks) + b'.')
    with contextlib.suppress(import_weights.READ_ERRORS):
      torch_files.find_tensors(pickles.interpret(stream))

  check()


def test_random_bytes_are_refused(tmp_path):
  @settings(max_examples=100, deadline=None)
  @given(
    st.sampled_from([b'', b'PK\x03\x04', b'\x80\x02', b'\x10' + b'\0' * 7]),
    st.binary(max_size=200),
  )
  def check(start, rest):
    refused(tmp_path, start + rest)

  check()


def safetensors(header, body=b'', length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  length = len(text) if length is None else length
  return struct.pack('<Q', length) + text + body


def of_length(length):
  """A file with one tensor whose header is padded to a length."""
  header = json.dumps({'a': entry([2], 0, 8)}).encode()
  body = np.array([1.5, -2.0], '<f4').tobytes()
  return safetensors(header.ljust(length), body)


@pytest.mark.parametrize('high', [0, 1, 2, 3, 4, 5, 255])
def test_no_byte_of_a_headers_length_makes_it_another_format(high):
  for length in range(256 * high, 256 * high + 256):
    if length >= 64:  # A header has at least its one entry.
      tensors, layout = import_weights.parse(of_length(length))
      assert layout == 'safetensors', length
      np.testing.assert_array_equal(tensors['a'], [1.5, -2.0])


def test_a_header_as_long_as_the_first_bytes_of_an_archive():
  data = of_length(int.from_bytes(b'PK\x03\x04', 'little'))
  assert data[:4] == b'PK\x03\x04'
  assert import_weights.parse(data)[1] == 'safetensors'


@pytest.mark.parametrize('length', [0x280, 0x480])
def test_a_header_that_starts_like_a_pickle_is_checked(length, tmp_path):
  data = of_length(length)
  assert pickles.is_pickle(data)
  assert 'belong to no tensor' in refused(tmp_path, data + b'abc')


@pytest.mark.parametrize(
  'data, words',
  [
    # The first byte of a pickle, but no protocol that there is.
    (b'\x80\x06N.', 'neither safetensors nor'),
    (b'\x80', 'neither safetensors nor'),
    (b'PK\x05\x06' + bytes(18), 'neither safetensors nor'),
    (b'\x80\x01' + bytes(6) + b'{', 'claims more bytes'),
  ],
)
def test_a_first_byte_does_not_decide(data, words, tmp_path):
  assert words in refused(tmp_path, data)


def entry(shape, start, stop, dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': [start, stop]}


@pytest.mark.parametrize(
  'data, words',
  [
    (safetensors({}, length=2**63), 'header claims more bytes'),
    (safetensors({'a': entry([2**40], 0, 2**42)}), 'is not where'),
    (safetensors({'a': entry([2**40], 0, 4)}, b'abcd'), 'is not where'),
    (safetensors({'a': entry([1], 0, 4)}, b'abc'), 'is not where'),
    (safetensors({'a': entry([1], 0, 4)}, b'abcdef'), 'belong to no tensor'),
    (safetensors({'a': entry([1], 4, 8)}, b'a' * 8), 'is not where'),
    (
      safetensors({'a': entry([1], 0, 4), 'b': entry([1], 0, 4)}, b'abcd'),
      'is not where',
    ),
    (
      safetensors({'a': entry([-1, -1], 0, 4)}, b'abcd'),
      'has an invalid shape',
    ),
    (safetensors({'a': entry([True], 0, 4)}, b'abcd'), 'has an invalid shape'),
    (safetensors({'a': entry([1], 0, 1, 'F8_E4M3')}, b'a'), 'type F8_E4M3'),
    (safetensors({'a': entry([1], 0, 4)}, b'\0\0\x80\x7f'), 'not finite'),
    (safetensors({'a': {'shape': [1]}}, b'abcd'), 'is corrupt'),
    (safetensors(b'{"a": 1, "a": 2}'), 'a name twice'),
    (safetensors(b'{"a": ' + b'[' * 100_000), 'is corrupt (RecursionError'),
    (safetensors({}), 'has no tensors'),
  ],
)
def test_claims_of_safetensors_are_checked(data, words, tmp_path):
  assert words in refused(tmp_path, data)


def tensor_program(size, shape, strides, offset=0):
  """A pickle of {'a': tensor} of a storage of `size` values."""

  def number(n):
    return b'\x8a\x08' + struct.pack('<q', n)

  def numbers(values):
    return b'(' + b''.join(map(number, values)) + b't'

  storage = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\n'
  storage += b'X\x01\x00\x00\x000X\x03\x00\x00\x00cpu' + number(size) + b'tQ'
  tensor = b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + number(offset)
  tensor += numbers(shape) + numbers(strides) + b'\x89)tR'
  return b'\x80\x02}X\x01\x00\x00\x00a' + tensor + b's.'


def test_the_hand_made_tensor_is_read(tmp_path):
  # Storage 0 of the golden file: the six values of single.weight.
  path = tmp_path / 'a.pth'
  path.write_bytes(as_archive(tensor_program(6, (2, 2), (3, 1), 1)))
  np.testing.assert_array_equal(
    import_weights.read(path).tensors['a'],
    count((2, 3), 0.5)[:, 1:],
  )


@pytest.mark.parametrize(
  'values, words',
  [
    ((6, (7,), (1,)), 'larger than its storage'),
    ((6, (2, 3), (4, 1)), 'larger than its storage'),
    ((6, (6,), (1,), 1), 'larger than its storage'),
    ((6, (2**40,), (0,)), 'larger than its storage'),
    ((6, (2**40,), (1,)), 'larger than its storage'),
    ((6, (2**31, 2**31, 2**31), (0, 0, 0)), 'larger than its storage'),
    ((2**40, (2**40,), (1,)), 'storage 0 does not have the declared size'),
    ((5, (5,), (1,)), 'storage 0 does not have the declared size'),
    ((6, (-1,), (1,)), 'an invalid shape'),
    ((6, (2,), (-1,)), 'an invalid shape'),
    ((6, (2,), (1,), -1), 'an invalid shape'),
    ((6, (2, 3), (1,)), 'a tensor without a storage'),
  ],
)
def test_claims_of_tensors_are_checked(values, words, tmp_path):
  data = as_archive(tensor_program(*values))
  assert words in refused(tmp_path, data)


def laughs():
  """Each dict holds the last one twice: 2^90 values in 1 kB."""
  program = b'\x80\x02}q\x00'
  for i in range(90):
    twice = b'(K\x00h' + bytes([i]) + b'K\x01h' + bytes([i]) + b'u'
    program += b'}' + twice + b'q' + bytes([i + 1])
  return program + b'.'


def mirrors():
  """A list that holds itself 20,000 times, in 40 kB."""
  return b'\x80\x02]q\x00(' + b'h\x00' * 20_000 + b'e.'


def echoes():
  """99,000 values in a list whose path has 6,000 characters, in 200 kB."""
  path = b''.join(
    b'}X\xc8\x00\x00\x00' + bytes([97 + i % 26]) * 200 for i in range(30)
  )
  values = b'](' + b'K\x00' * 99_000 + b'e'
  return b'\x80\x02' + path + values + b's' * 30 + b'.'


def claimed(name, member):
  """An archive whose directory says that a member is of 1 GiB."""
  data = bytearray((GOLDEN / name).read_bytes())
  place = data.rindex(member) - 46  # The directory is at the end.
  assert data[place : place + 4] == b'PK\x01\x02'
  struct.pack_into('<II', data, place + 20, 2**30, 2**30)
  return bytes(data)


def npz(shape, body=b''):
  header = str({'descr': '<f4', 'fortran_order': False, 'shape': shape})
  header = header.ljust(117) + '\n'
  npy = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode()
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    archive.writestr('a.npy', npy + body)
  return buffer.getvalue()


def compressed():
  buffer = io.BytesIO()
  np.savez_compressed(buffer, a=np.zeros(2**26, np.float32))
  return buffer.getvalue()


def twins():
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive, pytest.warns(UserWarning):
    archive.writestr('a/data.pkl', b'\x80\x02N.')
    archive.writestr('a/data.pkl', b'\x80\x02N.')
  return buffer.getvalue()


@pytest.mark.parametrize(
  'make, words',
  [
    (compressed, 'a.npy claims to grow more than 8 times'),
    (twins, 'two members with the same name'),
    (lambda: claimed('zip.pth', b'zip/data/0'), 'claim more bytes'),
    (lambda: npz((2**28,)), 'not have the size it claims'),
    (lambda: npz((2,), b'abc'), 'not have the size it claims'),
    (lambda: as_archive(laughs()), 'nests deeper than any network'),
    (lambda: as_archive(mirrors()), 'holds more values than any network'),
    (lambda: as_archive(echoes()), 'nests deeper than any network'),
    # A string of 2 GB, and a place in the memo past 32 GB.
    (lambda: as_archive(b'\x80\x02X\xff\xff\xff\x7fa.'), 'is corrupt'),
    (lambda: as_archive(b'\x80\x02Nr\xff\xff\xff\xff.'), 'no tensors'),
    (lambda: as_archive(b'\x80\x02' + b'(' * 10**5), 'is corrupt'),
  ],
)
def test_no_file_makes_memory_grow(make, words, tmp_path):
  data = make()
  tracemalloc.start()
  assert words in refused(tmp_path, data)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 64 * 2**20 + 100 * len(data)


# The hub.


@pytest.fixture
def hub(monkeypatch):
  """Sets what a download does: (repo, file, revision) -> path."""
  library = pytest.importorskip(
    'huggingface_hub', reason='the extra hub is not installed'
  )

  def answer(download):
    monkeypatch.setattr(library, 'hf_hub_download', download)

  return answer


def test_files_of_the_hub_come_by_name_and_revision(hub):
  calls = []

  def download(repo, file, revision):
    calls.append((repo, file, revision))
    return str(GOLDEN / 'tensors.safetensors')

  hub(download)
  for source in ('hf://o/n@31f26fd', 'hf://o/n.m@v1/vae/a.safetensors'):
    assert_equal(import_weights.read(source).tensors, NAMED)
  assert calls == [
    ('o/n', 'diffusion_pytorch_model.safetensors', '31f26fd'),
    ('o/n.m', 'vae/a.safetensors', 'v1'),
  ]
  for source in ('hf://o/n', 'hf://o@main', 'hf://o/n@', 'hf://o/n@a b'):
    with pytest.raises(errors.UsageError, match='names no file'):
      import_weights.read(source)


def failing(error):
  def download(*_, **__):
    raise error

  return download


def missing():
  """What the hub's library raises for a file that a repository lacks."""
  import httpx
  from huggingface_hub import errors as hub_errors

  asked = httpx.Request('HEAD', 'https://hub/o/n')
  return hub_errors.RemoteEntryNotFoundError(
    '404', response=httpx.Response(404, request=asked)
  )


def unreached():
  from huggingface_hub import errors as hub_errors

  return hub_errors.LocalEntryNotFoundError('no connection\nat all')


def slow():
  import httpx

  return httpx.ReadTimeout('timed out')


@pytest.mark.parametrize(
  'error, words',
  [
    (lambda: OSError('no network\nat all'), 'aded: no network$'),
    (slow, 'aded: timed out$'),
    (unreached, 'aded: no connection$'),
  ],
)
@pytest.mark.parametrize(
  'read', [import_weights.read, import_weights.read_config]
)
def test_what_fails_on_the_way_to_the_hub_is_one_sentence(
  error, words, read, hub
):
  """A description may be there, and others' values must not replace it."""
  hub(failing(error()))
  with pytest.raises(errors.UsageError, match=words):
    read('hf://o/n@v1')


def test_the_description_of_the_hub_is_beside_the_weights(hub, tmp_path):
  calls = []
  (tmp_path / 'config.json').write_text('{"norm_num_groups": 8}')

  def download(repo, file, revision):
    calls.append((repo, file, revision))
    return str(tmp_path / 'config.json')

  hub(download)
  for source in ('hf://o/n@31f26fd', 'hf://o/n.m@v1/vae/a.safetensors'):
    assert import_weights.read_config(source) == {'norm_num_groups': 8}
  assert calls == [
    ('o/n', 'config.json', '31f26fd'),
    ('o/n.m', 'vae/config.json', 'v1'),
  ]
  # There is no folder above the repository's to ask for.
  assert import_weights.read_config('hf://o/n@v1', '../a/b.json') is None
  assert len(calls) == 2
  with pytest.raises(errors.UsageError, match='names no file'):
    import_weights.read_config('hf://o/n')


def test_a_description_that_the_hub_lacks_is_none(hub, monkeypatch):
  import huggingface_hub

  hub(failing(missing()))
  assert import_weights.read_config('hf://o/n@v1/a.safetensors') is None
  with pytest.raises(import_weights.WeightsError, match='no file of weights'):
    import_weights.read('hf://o/n@v1/a.safetensors')
  # Without a connection too, where it was asked before.
  hub(failing(unreached()))
  monkeypatch.setattr(
    huggingface_hub,
    'try_to_load_from_cache',
    lambda *_, **__: huggingface_hub._CACHED_NO_EXIST,
  )
  assert import_weights.read_config('hf://o/n@v1/a.safetensors') is None


def test_the_hub_without_its_package_is_one_sentence(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(errors.UsageError, match='pip install hugging'):
    import_weights.read('hf://o/n@v1')


def test_a_file_with_real_weights(shared):
  weights = import_weights.read(
    shared / 'weights/taef2_encoder.pth',
    '10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6',
  )
  # First and last convolution, ten blocks of three, three that halve, three
  # pairs of 1 x 1 around a norm.
  sizes = (3 * 64 * 9 + 64, 64 * 32 * 9 + 32, 10 * 3 * (64 * 64 * 9 + 64))
  sizes += (3 * 64 * 64 * 9, 3 * (2 * 64 * 256 + 2 * 256))
  assert sum(map(np.size, weights.tensors.values())) == sum(sizes)
