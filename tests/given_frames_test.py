"""Frames that are given, from files, as the data set would hold them."""

import numpy as np
from PIL import Image
import pytest
import tiny_videos

from vdm.common import errors
from vdm.config import schema
from vdm.preparation import given_frames

SIDE = 32
HALF = (16, 16)


@pytest.fixture
def data():
  """A data set of 32 px, 12.5 frames a second: every second of 25."""
  data = schema.default().data
  data.update(resolution=SIDE, frame_rate=25.0, stride=2)
  return data


def grey(level, height=40, width=60):
  return np.full((height, width, 3), level, np.uint8)


def refused(words, function, *args):
  with pytest.raises(errors.UsageError) as error:
    function(*args)
  said = str(error.value)
  assert words in said and '\n' not in said and said.endswith('.'), said


@pytest.mark.parametrize(
  'text, wanted',
  [
    ('0', (0,)),
    ('-1', (7,)),
    ('0:4', (0, 1, 2, 3)),
    ('0,-1', (0, 7)),
    ('-1, 0 ,0', (0, 7)),
    ('6:', (6, 7)),
    ('-2:,0', (0, 6, 7)),
    ('0:8', tuple(range(8))),
  ],
)
def test_indices_are_pythons(text, wanted):
  assert given_frames.parse_indices(text, 8) == wanted


@pytest.mark.parametrize(
  'text, words',
  [
    ('8', '0 to 7, and 8 is none'),
    ('-9', 'and -9 is none'),
    ('0:9', 'and 9 is none'),
    ('first', 'takes indices and ranges'),
    ('0;1', 'takes indices and ranges'),
    ('', 'takes indices and ranges'),
    ('4:4', 'names no frame'),
  ],
)
def test_other_indices_are_refused(text, words):
  refused(words, given_frames.parse_indices, text, 8)


def test_frames_of_a_video_are_those_at_the_runs_rate(tmp_path, data):
  path = tmp_path / 'clip.mp4'
  tiny_videos.write_video(path, tiny_videos.grey_steps(20, 48, 64), rate=50)
  given = given_frames.read(str(path), (0, 1, 4), data, HALF)
  assert given.frames.shape == (1, 3, 16, 16, 3)
  assert given.frames.dtype == np.uint8
  # 50 a second, read at 12.5: every fourth.
  assert tiny_videos.read_levels(given.frames[0]) == [0, 4, 16]
  assert given.names == ['clip.mp4'] and given.labels.tolist() == [-1]
  read = given_frames.read
  refused('has 5 frames at 12.5 a second', read, str(path), (0, 5), data, HALF)
  data.resolution = 64
  refused('smaller than 64 px', read, str(path), (0,), data, HALF)
  data.upscale = True
  assert read(str(path), (0,), data, HALF).frames.shape == (1, 1, 16, 16, 3)


def test_pictures_are_their_middle_square_upright(tmp_path, data):
  image = grey(20)
  image[:, 10:50] = 200  # The middle square is all of one colour.
  Image.fromarray(image).save(tmp_path / 'a.png')
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by 90 degrees.
  tall = grey(20)
  tall[:20] = 90
  Image.fromarray(tall).save(tmp_path / 'b.jpg', exif=exif, quality=95)
  read = given_frames.read
  one = read(str(tmp_path / 'a.png'), (5,), data, HALF)
  np.testing.assert_array_equal(one.frames, np.full((1, 1, 16, 16, 3), 200))
  two = read(f'{tmp_path}/a.png,{tmp_path}/b.jpg', (0, 7), data, HALF)
  assert two.names == ['a.png,b.jpg']
  np.testing.assert_array_equal(two.frames[:, :1], one.frames)
  # What was above lies to the right.
  turned = two.frames[0, 1].astype(int)
  assert abs(turned[:, 1:6] - 20).max() < 6
  assert abs(turned[:, 10:15] - 90).max() < 6
  path = str(tmp_path / 'a.png')
  refused('1 picture for 2 given frames', read, path, (0, 7), data, HALF)
  data.limits.pixels = 100
  refused('too many', read, path, (0,), data, HALF)


def test_folders_and_arrays_give_many(tmp_path, data):
  for name, level in (('b.png', 80), ('a.jpg', 40)):
    Image.fromarray(grey(level)).save(tmp_path / name, quality=95)
  (tmp_path / 'notes.txt').write_text('no frames')
  read = given_frames.read
  given = read(str(tmp_path), (0,), data, HALF)
  assert given.names == ['a.jpg', 'b.png']
  assert abs(given.frames.mean((1, 2, 3, 4)) - [40, 80]).max() < 1
  refused('notes.txt', read, str(tmp_path / 'notes.txt'), (0,), data, HALF)
  videos = np.arange(24, dtype=np.uint8).reshape(3, 8, 1, 1, 1)
  videos = np.broadcast_to(videos, (3, 8, 32, 32, 3))
  np.savez(
    tmp_path / 'samples.npz',
    videos=videos,
    labels=[1, 0, -1],
    label_names=['up', 'down'],
  )
  # Where there are arrays, the files beside them show the same.
  given = read(str(tmp_path), (0, 7), data, HALF)
  assert given.frames[..., 0, 0, 0].tolist() == [[0, 7], [8, 15], [16, 23]]
  assert given.names[2] == 'samples.npz/2'
  assert given.labels.tolist() == [1, 0, -1]
  path = str(tmp_path / 'samples.npz')
  refused('has 8 frames', read, path, (8,), data, HALF)
  refused('neither 64 px nor larger', read, path, (0,), data, (64, 64))


def test_labels_are_known_from_a_runs_own_samples(data):
  del data
  model = schema.default().model
  model.num_classes = 2
  frames = np.zeros((3, 1, 4, 4, 3), np.uint8)
  labels = np.array([1, 0, 1])
  own = given_frames.Given(frames, list('abc'), labels, ['up', 'down'])
  choose = given_frames.labels
  assert choose(own, model, ['up', 'down'], 4).tolist() == [1, 0, 1, 1]
  assert choose(own, model, ['left', 'right'], 2).tolist() == [-1, -1]
  model.label_dropout = 0.0
  refused('give --label', choose, own, model, ['left', 'right'], 2)
  model.num_classes = 0
  assert choose(own, model, [], 2).tolist() == [-1, -1]


def test_files_that_are_not_what_they_seem_are_refused(tmp_path, data):
  read = given_frames.read
  for name in ('a.png', 'b.mp4', 'c.npz'):
    (tmp_path / name).write_bytes(b'nothing of the kind')
    refused('cannot be used', read, str(tmp_path / name), (0,), data, HALF)
  refused(
    'no file or folder', read, str(tmp_path / 'gone.mp4'), (0,), data, HALF
  )
  (tmp_path / 'empty').mkdir()
  refused('holds no picture', read, str(tmp_path / 'empty'), (0,), data, HALF)
  both = f'{tmp_path}/a.png,{tmp_path}/b.mp4'
  refused('only pictures', read, both, (0, 1), data, HALF)
