"""Clips from folders: which ones, of which frames, and what is left out."""

import shutil
import zipfile

import numpy as np
import pytest

from tests import tiny_videos
from vdm.media import video_files
from vdm.preparation import clip_files


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three videos whose frames tell their number, and files of no use."""
  folder = tmp_path_factory.mktemp('videos')
  (folder / 'deep').mkdir()
  for name, frames in (('a.mp4', 24), ('deep/b.mp4', 12), ('c.avi', 9)):
    tiny_videos.write_video(folder / name, tiny_videos.grey_steps(frames))
  (folder / 'damaged.mp4').write_bytes(b'no video')
  (folder / 'notes.txt').write_text('not looked at')
  return folder


def read(folder, **options):
  settings = dict(frames=4, resolution=32, num=100) | options
  videos, names = clip_files.read_clips(folder, **settings)
  assert videos.shape[1:] == (4, 32, 32, 3) and videos.dtype == np.uint8
  return [tiny_videos.read_levels(video) for video in videos], list(names)


def test_first_windows_in_order_of_name(folder, caplog):
  levels, names = read(folder, sampling='first')
  assert names == ['a.mp4', 'c.avi', 'deep/b.mp4']
  assert levels == [[0, 1, 2, 3]] * 3
  assert 'damaged.mp4 is left out' in caplog.text
  levels, names = read(folder, sampling='first', num=1, stride=5)
  assert levels == [[0, 5, 10, 15]] and names == ['a.mp4']


def test_middle_windows_do_not_overlap(folder):
  levels, names = read(folder, sampling='middle', per_video=3)
  found = {}
  for name, frames in zip(names, levels):
    found.setdefault(name, []).extend(frames)
  assert {name: len(frames) for name, frames in found.items()} == {
    'a.mp4': 12,
    'deep/b.mp4': 12,
    'c.avi': 8,
  }
  for frames in found.values():
    assert frames == sorted(set(frames))


def test_no_more_clips_of_a_video_than_it_takes(folder):
  # Four files, one of them damaged.
  _, names = read(folder, num=3, per_video=3)
  assert sorted(names) == ['a.mp4', 'c.avi', 'deep/b.mp4']
  _, names = read(folder, num=5, per_video=3)
  assert len(names) == 5 and names.count('a.mp4') == 2


def test_random_windows_are_those_of_the_seed(folder):
  first = read(folder, seed=1, per_video=2)
  assert first == read(folder, seed=1, per_video=2)
  assert any(read(folder, seed=s) != read(folder, seed=0) for s in (1, 2, 3))


def test_frame_rate_is_brought_to_one(folder):
  levels, _ = read(folder, sampling='first', num=1, frame_rate=12.5)
  assert levels == [[0, 2, 4, 6]]


def test_arrays_are_taken_as_they_are(tmp_path):
  videos = np.random.default_rng(0).integers(0, 256, (3, 6, 32, 32, 3), 'u1')
  np.savez(tmp_path / 'samples.npz', videos=videos, labels=np.arange(3))
  np.savez(tmp_path / 'small.npz', np.zeros((2, 6, 8, 8, 3), np.uint8))
  found, names = clip_files.read_clips(
    tmp_path, frames=4, resolution=32, num=9, sampling='first'
  )
  np.testing.assert_array_equal(found, videos[:, :4])
  assert len(set(names)) == 3  # Each clip is its own.
  file, _ = clip_files.read_clips(
    tmp_path / 'samples.npz', frames=3, stride=2, resolution=16, num=2
  )
  assert file.shape == (2, 3, 16, 16, 3)
  np.testing.assert_allclose(
    file[0, 1, 0, 0], videos[0, 2, :2, :2].mean((0, 1)), atol=0.51
  )


def test_the_files_are_those_of_preparation(folder, tmp_path, caplog):
  for name in ('.ipynb_checkpoints', '__MACOSX'):
    (tmp_path / name).mkdir()
    shutil.copy(folder / 'a.mp4', tmp_path / name / 'hidden.mp4')
  shutil.copy(folder / 'a.mp4', tmp_path / 'a.mp4')
  (tmp_path / 'linked').symlink_to(folder / 'deep')
  (tmp_path / 'gone.mp4').symlink_to('nothing')
  (tmp_path / 'notes.txt').write_text('no video')
  frames = tiny_videos.grey_steps(6)
  tiny_videos.write_video(tmp_path / 'c.mpg', frames, codec='mpeg1video')
  video_files.write_gif(tmp_path / 'd.GIF', frames, 25)
  with caplog.at_level('INFO', logger='absl'):
    levels, names = read(tmp_path, sampling='first')
  assert names == ['a.mp4', 'c.mpg', 'd.GIF', 'linked/b.mp4']
  assert levels == [[0, 1, 2, 3]] * 4
  assert 'gone.mp4 is left out: it links to' in caplog.text
  assert 'left out as no videos: 2 hidden, 1 text' in caplog.text


def test_an_archive_is_read_like_a_folder(folder, tmp_path):
  archive = shutil.make_archive(str(tmp_path / 'videos'), 'zip', folder)
  assert read(archive) == read(folder)
  (tmp_path / 'bad.zip').write_bytes(b'no archive')
  with pytest.raises(ValueError, match='is no .zip archive'):
    read(tmp_path / 'bad.zip')


def test_nothing_to_read_is_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder'):
    read(tmp_path / 'none')
  np.savez(tmp_path / 'a.npz', videos=np.array([{}], dtype=object))
  with pytest.raises(ValueError, match='holds no clip of 4 frames and 32 px'):
    read(tmp_path)


@pytest.mark.parametrize(
  'write, words',
  [
    (
      lambda f: np.savez(f, images=np.zeros((2, 4, 32, 32, 3), np.uint8)),
      'no array `videos`, only images',
    ),
    (lambda f: np.savez(f), 'no array `videos`, only nothing'),
    (lambda f: np.save(f, np.zeros(3)), 'is no .npz but a single array'),
    (
      lambda f: zipfile.ZipFile(f, 'w').writestr('notes.txt', 'x'),
      'no array `videos`, only notes.txt',
    ),
    (
      lambda f: zipfile.ZipFile(f, 'w').writestr('videos', 'x'),
      'is a zip but no .npz',
    ),
    (lambda f: None, 'left out'),
    (lambda f: f.write(b'PK\x03\x04' + bytes(99)), 'left out'),
  ],
)
def test_arrays_of_other_files_are_left_out_with_the_reason(
  tmp_path, caplog, write, words
):
  with (tmp_path / 'clips.npz').open('wb') as file:
    write(file)
  with pytest.raises(ValueError, match='holds no clip'):
    read(tmp_path)
  assert words in caplog.text
