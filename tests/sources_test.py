"""Which files a source has; archives are refused before they are unpacked."""

import io
import os
import pathlib
import shutil
import stat
import struct
import tarfile
import zipfile

import pytest

from vdm.data.builders import build_plan
from vdm.preparation import decoding
from vdm.preparation import sources


def make_zip(path, members):
  """Writes members {name: bytes} or {ZipInfo: bytes}."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in members.items():
      archive.writestr(name, data, zipfile.ZIP_DEFLATED)
  return str(path)


def open_all(path):
  with sources.open_tree(path) as (files, _):
    contents = {}
    for file in files:
      with file.open() as place:
        contents[file.name] = pathlib.Path(place).read_bytes()
    return contents


LEFTOVERS = {
  '__MACOSX/cats/._a.mp4': '__MACOSX/',
  'cats/.ipynb_checkpoints/a.mp4': 'cats/.ipynb_checkpoints/',
  'cats/.DS_Store': 'cats/.DS_Store',
  'cats/Thumbs.db': 'cats/Thumbs.db',
  'dogs/Desktop.ini': 'dogs/Desktop.ini',
  '.git/a/b/c.mp4': '.git/',
}


def names(tree):
  """Names of the usable files, and {name: reason} of the others."""
  skipped = {skip.source: skip.reason for skip in tree.skipped}
  assert len(skipped) == len(tree.skipped)
  return [file.name for file in tree.files], skipped


def write_files(folder, paths):
  for path in paths:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b'x')
  return folder


@pytest.mark.parametrize('is_zip', [False, True])
def test_what_systems_leave_is_left_out_by_name(tmp_path, is_zip):
  paths = [*LEFTOVERS, 'cats/a.mp4', 'dogs/b.mp4']
  source = str(write_files(tmp_path / 'source', paths))
  if is_zip:
    source = make_zip(tmp_path / 'a.zip', dict.fromkeys(paths, b'x'))
  with sources.open_tree(source) as tree:
    files, skipped = names(tree)
  assert files == ['cats/a.mp4', 'dogs/b.mp4']
  assert skipped == dict.fromkeys(LEFTOVERS.values(), 'hidden')


def test_names_of_members_are_paths(tmp_path):
  # As some programs write them.
  members = dict.fromkeys(['./cats/a.mp4', 'dogs\\b.mp4'], b'x')
  path = make_zip(tmp_path / 'a.zip', members)
  assert sorted(open_all(path)) == ['cats/a.mp4', 'dogs/b.mp4']


def test_other_suffixes_have_their_reasons(tmp_path):
  reasons = {
    'a.txt': 'text',
    'b.JPG': 'picture',
    'c.webp': 'picture',
    'd.mp3': 'sound',
    'e.zip': 'archive',
    'f.xyz': 'other_suffix',
    'mp4': 'other_suffix',
  }
  folder = write_files(tmp_path, [*reasons, 'g.mp4', 'h.GIF', 'i.m2ts'])
  tree = sources.read_folder(str(folder)).of_suffixes(sources.VIDEO_SUFFIXES)
  assert names(tree) == (['g.mp4', 'h.GIF', 'i.m2ts'], reasons)
  listed = sources.listing(str(folder), sources.VIDEO_SUFFIXES)
  assert listed == [['g.mp4', 1], ['h.GIF', 1], ['i.m2ts', 1]]


def test_links_inside_are_followed_and_circles_end(tmp_path):
  folder = write_files(tmp_path / 'source', ['cats/a.mp4', '.store/b.mp4'])
  for link, target in {
    'dogs': '.store',
    'c.mp4': 'cats/a.mp4',
    'cats/self.mp4': 'self.mp4',
    'cats/up': '..',
    'cats/here': '.',
    'cats/other': '../birds',
    'again': '.store',
    'nowhere': 'nothing',
  }.items():
    (folder / link).symlink_to(target)
  (folder / 'birds').mkdir()
  (folder / 'birds/back').symlink_to('../cats')
  files, skipped = names(sources.read_folder(str(folder)))
  # Each folder is entered through one link at most.
  assert files == ['again/b.mp4', 'birds/back/a.mp4', 'c.mp4', 'cats/a.mp4']
  assert skipped == {
    '.store/': 'hidden',
    'birds/back/here/': 'repeated_link',
    'birds/back/other/': 'repeated_link',
    'birds/back/self.mp4': 'broken_link',
    'birds/back/up/': 'repeated_link',
    'cats/here/': 'repeated_link',
    'cats/other/back/': 'repeated_link',
    'cats/self.mp4': 'broken_link',
    'cats/up/': 'repeated_link',
    'dogs/': 'repeated_link',
    'nowhere': 'broken_link',
  }


def test_links_to_the_outside_are_followed_if_asked(tmp_path):
  write_files(tmp_path, ['elsewhere/a.mp4', 'source_2/b.mp4'])
  folder = write_files(tmp_path / 'source', ['c.mp4'])
  (folder / 'a.mp4').symlink_to(tmp_path / 'elsewhere/a.mp4')
  (folder / 'dogs').symlink_to(tmp_path / 'source_2')
  (folder / 'home').symlink_to('..')
  tree = sources.read_folder(str(folder))
  outside = ['a.mp4', 'dogs/', 'home/']
  assert names(tree) == (['c.mp4'], dict.fromkeys(outside, 'outside_link'))
  for skip in tree.skipped:
    assert 'data.follow_links=True' in skip.message
  files, skipped = names(sources.read_folder(str(folder), follow_links=True))
  assert files == [
    'a.mp4',
    'c.mp4',
    'dogs/b.mp4',
    'home/elsewhere/a.mp4',
    # The folder itself is not entered once more.
    'home/source_2/b.mp4',
  ]
  assert set(skipped) == {'home/source/'}
  # A link may lead to the source itself.
  (tmp_path / 'link').symlink_to(folder)
  assert names(sources.read_folder(str(tmp_path / 'link')))[0] == ['c.mp4']


def test_many_links_between_folders_end(tmp_path):
  for i in range(12):
    (tmp_path / f'{i}').mkdir()
    for j in range(12):
      (tmp_path / f'{i}/{j}').symlink_to(f'../{j}')
  tree = sources.read_folder(str(tmp_path))
  assert not tree.files and 12 * 11 < len(tree.skipped) < 12 * 24


def test_pipes_are_named(tmp_path):
  os.mkfifo(tmp_path / 'a.mp4')
  files, skipped = names(sources.read_folder(str(tmp_path)))
  assert (files, skipped) == ([], {'a.mp4': 'no_file'})


@pytest.mark.parametrize(
  'name', ['../evil.avi', '/etc/evil.avi', 'a/../../evil', 'C:\\evil', '..\\e']
)
def test_members_outside_are_refused(tmp_path, name):
  path = make_zip(tmp_path / 'a.zip', {'good.avi': b'x', name: b'x'})
  with pytest.raises(build_plan.BuildError, match='nothing was unpacked'):
    open_all(path)


def test_links_are_refused(tmp_path):
  link = zipfile.ZipInfo('link.avi')
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  path = make_zip(tmp_path / 'a.zip', {link: b'/etc/passwd'})
  with pytest.raises(build_plan.BuildError, match='is a link'):
    open_all(path)


def test_bombs_are_refused(tmp_path):
  path = make_zip(tmp_path / 'a.zip', {'zeros.avi': bytes(8 << 20)})
  with pytest.raises(build_plan.BuildError, match='like a bomb'):
    open_all(path)


def test_a_lying_size_is_not_believed(tmp_path):
  path = make_zip(tmp_path / 'a.zip', {'a.avi': b'0123456789' * 50})
  data = bytearray(pathlib.Path(path).read_bytes())
  # The uncompressed size in the central directory.
  place = data.index(b'PK\x01\x02') + 24
  data[place : place + 4] = struct.pack('<I', 7)
  pathlib.Path(path).write_bytes(data)
  with pytest.raises(decoding.VideoError, match='damaged'):
    open_all(path)


def test_damaged_member_is_one_bad_video(tmp_path):
  path = make_zip(tmp_path / 'a.zip', {'a.avi': os.urandom(5000), 'b.avi': b''})
  data = bytearray(pathlib.Path(path).read_bytes())
  data[2000] ^= 0xFF
  pathlib.Path(path).write_bytes(data)
  with sources.open_tree(path) as (files, _):
    assert [file.name for file in files] == ['a.avi', 'b.avi']
    with (
      pytest.raises(decoding.VideoError, match='damaged') as caught,
      files[0].open(),
    ):
      pass
    assert caught.value.reason == 'undecodable'
    with files[1].open() as place:
      assert os.path.getsize(place) == 0
  assert not os.path.exists(place)


def test_other_files_are_refused(tmp_path):
  (tmp_path / 'a.zip').write_bytes(b'not a zip')
  with pytest.raises(build_plan.BuildError, match='is no .zip archive'):
    open_all(str(tmp_path / 'a.zip'))
  (tmp_path / 'a.tar').write_bytes(b'')
  with pytest.raises(build_plan.BuildError, match='neither a folder nor'):
    open_all(str(tmp_path / 'a.tar'))


def test_rar_without_an_unpacker_names_the_command(tmp_path, monkeypatch):
  (tmp_path / 'UCF101.rar').write_bytes(b'Rar!')
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(build_plan.BuildError, match='unrar x UCF101.rar'):
    open_all(str(tmp_path / 'UCF101.rar'))


def fake_unrar(folder, names, extract, kind='File', size=5):
  """Puts a program called unrar, as it behaves, on its own in `folder`."""
  folder.mkdir()
  program = folder / 'unrar'
  listed = '\\n'.join(names)
  details = '\\n'.join(
    f'        Name: {name}\\n        Type: {kind}\\n        Size: {size}'
    f'\\n Packed size: 3\\n       Ratio: 60%%\\n'
    for name in names
  )
  program.write_text(
    '#!/bin/sh\n'
    f'case "$1" in lb) printf "{listed}\\n";; vt) printf "{details}\\n";;'
    f' *) {extract};; esac\n'
  )
  program.chmod(0o755)


def test_rar_by_an_unpacker(tmp_path, monkeypatch):
  (tmp_path / 'a.rar').write_bytes(b'Rar!')
  fake_unrar(tmp_path / 'bin', ['d/v.avi'], 'mkdir d; printf hello > d/v.avi')
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  assert open_all(str(tmp_path / 'a.rar')) == {'d/v.avi': b'hello'}


@pytest.mark.parametrize(
  'names, kind, size, message',
  [
    (['../v.avi'], 'File', 5, 'unsafe member name'),
    (['v.avi'], 'Unix symbolic link', 11, 'a link or a device'),
    (['v.avi'], 'File', 1 << 30, 'like a bomb'),
    (['v.avi'], 'File', '?', 'does not list the sizes'),
  ],
)
def test_bad_rar_is_refused_before_anything_is_written(
  tmp_path, monkeypatch, names, kind, size, message
):
  (tmp_path / 'a.rar').write_bytes(b'Rar!')
  touch = f'touch {tmp_path / "written"}'
  fake_unrar(tmp_path / 'bin', names, touch, kind, size)
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  with pytest.raises(build_plan.BuildError, match=message):
    open_all(str(tmp_path / 'a.rar'))
  assert not (tmp_path / 'written').exists()


@pytest.mark.parametrize(
  'extract, message',
  [
    ('ln -s /etc/passwd v.avi', 'contains the link'),
    ('echo checksum error >&2; exit 3', 'failed: checksum error'),
    # More than the listing said.
    ('head -c 1000000 /dev/zero > v.avi', 'failed'),
  ],
)
def test_a_rar_that_lies(tmp_path, monkeypatch, extract, message):
  (tmp_path / 'a.rar').write_bytes(b'Rar!')
  fake_unrar(tmp_path / 'bin', ['v.avi'], extract)
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  with pytest.raises(build_plan.BuildError, match=message):
    open_all(str(tmp_path / 'a.rar'))


@pytest.fixture
def bsdtar():
  """The real program; it unpacks .rar, and tells a tar by its content."""
  if not shutil.which('bsdtar') or shutil.which('unrar'):
    pytest.skip('bsdtar is not what unpacks a .rar here')


def make_tar(path, members):
  """Writes members {name: bytes, or the target of a link}."""
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in members.items():
      member = tarfile.TarInfo(name)
      if isinstance(content, str):
        member.type, member.linkname = tarfile.SYMTYPE, content
        archive.addfile(member)
      else:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
  return str(path)


def test_bsdtar_unpacks(bsdtar, tmp_path):
  members = {'d/a.avi': b'0123', 'b c.avi': os.urandom(50_000)}
  assert open_all(make_tar(tmp_path / 'a.rar', members)) == members


@pytest.mark.parametrize(
  'members, message',
  [
    ({'a.avi': b'x', '../evil.avi': b'x'}, 'unsafe member name'),
    ({'a.avi': b'x', 'link.avi': '/etc/passwd'}, 'a link or a device'),
    ({'zeros.avi': bytes(20 << 20)}, 'like a bomb'),
  ],
)
def test_bsdtar_s_listing_is_checked(bsdtar, tmp_path, members, message):
  path = make_tar(tmp_path / 'a.rar', members)
  with pytest.raises(build_plan.BuildError, match=message):
    open_all(path)
