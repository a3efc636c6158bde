"""Archives are refused before anything is written."""

import os
import pathlib
import stat
import struct
import zipfile

import pytest

from vdm.data import video
from vdm.data.builders import records
from vdm.data.builders import sources


def make_zip(path, members):
  """Writes members {name: bytes} or {ZipInfo: bytes}."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in members.items():
      archive.writestr(name, data, zipfile.ZIP_DEFLATED)
  return str(path)


def open_all(path):
  with sources.open_tree(path) as files:
    contents = {}
    for file in files:
      with file.open() as place:
        contents[file.name] = pathlib.Path(place).read_bytes()
    return contents


@pytest.mark.parametrize(
  'name', ['../evil.avi', '/etc/evil.avi', 'a/../../evil', 'C:\\evil', '..\\e']
)
def test_members_outside_are_refused(tmp_path, name):
  path = make_zip(tmp_path / 'a.zip', {'good.avi': b'x', name: b'x'})
  with pytest.raises(records.BuildError, match='nothing was unpacked'):
    open_all(path)


def test_links_are_refused(tmp_path):
  link = zipfile.ZipInfo('link.avi')
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  path = make_zip(tmp_path / 'a.zip', {link: b'/etc/passwd'})
  with pytest.raises(records.BuildError, match='is a link'):
    open_all(path)


def test_bombs_are_refused(tmp_path):
  path = make_zip(tmp_path / 'a.zip', {'zeros.avi': bytes(8 << 20)})
  with pytest.raises(records.BuildError, match='like a bomb'):
    open_all(path)


def test_a_lying_size_is_not_believed(tmp_path):
  path = make_zip(tmp_path / 'a.zip', {'a.avi': b'0123456789' * 50})
  data = bytearray(pathlib.Path(path).read_bytes())
  # The uncompressed size in the central directory.
  place = data.index(b'PK\x01\x02') + 24
  data[place : place + 4] = struct.pack('<I', 7)
  pathlib.Path(path).write_bytes(data)
  with pytest.raises(video.VideoError, match='damaged'):
    open_all(path)


def test_damaged_member_is_one_bad_video(tmp_path):
  path = make_zip(tmp_path / 'a.zip', {'a.avi': os.urandom(5000), 'b.avi': b''})
  data = bytearray(pathlib.Path(path).read_bytes())
  data[2000] ^= 0xFF
  pathlib.Path(path).write_bytes(data)
  with sources.open_tree(path) as files:
    assert [file.name for file in files] == ['a.avi', 'b.avi']
    with (
      pytest.raises(video.VideoError, match='damaged') as caught,
      files[0].open(),
    ):
      pass
    assert caught.value.reason == 'undecodable'
    with files[1].open() as place:
      assert os.path.getsize(place) == 0
  assert not os.path.exists(place)


def test_other_files_are_refused(tmp_path):
  (tmp_path / 'a.zip').write_bytes(b'not a zip')
  with pytest.raises(records.BuildError, match='is no .zip archive'):
    open_all(str(tmp_path / 'a.zip'))
  (tmp_path / 'a.tar').write_bytes(b'')
  with pytest.raises(records.BuildError, match='neither a folder nor'):
    open_all(str(tmp_path / 'a.tar'))


def test_rar_without_an_unpacker_names_the_command(tmp_path, monkeypatch):
  (tmp_path / 'UCF101.rar').write_bytes(b'Rar!')
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(records.BuildError, match='unrar x UCF101.rar'):
    open_all(str(tmp_path / 'UCF101.rar'))


def fake_unrar(folder, names, extract):
  """Puts a program called unrar, as it behaves, on its own in `folder`."""
  folder.mkdir()
  program = folder / 'unrar'
  listed = '\\n'.join(names)
  program.write_text(
    '#!/bin/sh\n'
    f'if [ "$1" = lb ]; then printf "{listed}\\n"; else {extract}; fi\n'
  )
  program.chmod(0o755)


def test_rar_by_an_unpacker(tmp_path, monkeypatch):
  (tmp_path / 'a.rar').write_bytes(b'Rar!')
  fake_unrar(tmp_path / 'bin', ['d/v.avi'], 'mkdir d; printf hello > d/v.avi')
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  assert open_all(str(tmp_path / 'a.rar')) == {'d/v.avi': b'hello'}


@pytest.mark.parametrize(
  'names, extract, message',
  [
    (['../v.avi'], 'touch ../never', 'unsafe member name'),
    (['v.avi'], 'ln -s /etc/passwd v.avi', 'holds the link'),
    (['v.avi'], 'echo checksum error >&2; exit 3', 'failed: checksum error'),
  ],
)
def test_bad_rar(tmp_path, monkeypatch, names, extract, message):
  (tmp_path / 'a.rar').write_bytes(b'Rar!')
  fake_unrar(tmp_path / 'bin', names, extract)
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  with pytest.raises(records.BuildError, match=message):
    open_all(str(tmp_path / 'a.rar'))
