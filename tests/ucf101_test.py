"""UCF101: official lists as split flags, strict about what they name."""

import itertools
import shutil

import av
import numpy as np
import pytest

from tests import tiny_videos
from vdm.config import schema
from vdm.data import builders
from vdm.data import coding
from vdm.data.builders import reader
from vdm.preparation import datasets


def ucf_config(root, source, **changes):
  data = schema.default().data
  data.name, data.resolution = 'ucf101', 32
  data.root, data.source = str(root), str(source)
  data.update(changes)
  return data


@pytest.fixture(scope='module')
def official(tmp_path_factory):
  """A generated UCF101: (folder, dataset directory)."""
  folder = tiny_videos.make_ucf101(tmp_path_factory.mktemp('ucf'))
  root = tmp_path_factory.mktemp('root')
  return folder, datasets.build(ucf_config(root, folder))


def copy_of(official, tmp_path):
  folder = tmp_path / 'copy'
  shutil.copytree(official[0], folder)
  return folder


def test_one_copy_serves_every_list(official):
  _, directory = official
  for number, held_out in (('01', 'g01'), ('02', 'g02')):
    train = builders.open_source(directory, 'train', number)
    test = builders.open_source(directory, 'validation', number)
    assert not set(train.index['group']) & set(test.index['group'])
    assert all(held_out in group for group in test.index['group'])
    assert test.index['label'].tolist() == [0, 1, 2]
    assert len(train) == len(test) == 3
  assert reader.read_info(directory)['records'] == 6
  with pytest.raises(ValueError, match="no split 'train' of list '03'"):
    builders.open_source(directory, 'train', '03')


def test_records_say_what_the_names_say(official):
  source = builders.open_source(official[1], 'validation', '02')
  assert source.info['label_names'] == list(tiny_videos.CLASSES)
  assert source.index['id'].tolist() == [
    f'v_{name}_g02_c01:000000' for name in tiny_videos.CLASSES
  ]
  assert source.index['group'].tolist() == [
    f'{name}/g02' for name in tiny_videos.CLASSES
  ]
  assert set(source.index['n']) == {8}
  assert set(source.index['height']) == {64}
  frames = source.frames(int(source.index['row'][1]))
  levels = tiny_videos.read_levels(map(coding.decode_frame, frames))
  assert levels == list(range(8))


def test_the_class_folders_alone_with_the_lists_beside(official, tmp_path):
  directory = datasets.build(ucf_config(tmp_path, official[0] / 'UCF-101'))
  one, two = (reader.read_info(d) for d in (directory, official[1]))
  assert one['fingerprint'] == two['fingerprint']


def test_zip_gives_the_same_dataset(official, tmp_path):
  archive = shutil.make_archive(str(tmp_path / 'UCF101'), 'zip', official[0])
  directory = datasets.build(ucf_config(tmp_path, archive))
  one, two = (reader.read_info(d) for d in (directory, official[1]))
  assert one['fingerprint'] == two['fingerprint']
  assert directory != official[1]


def test_missing_listed_clip_stops_the_build(official, tmp_path):
  folder = copy_of(official, tmp_path)
  clip = 'Biking/v_Biking_g02_c01.avi'
  (folder / 'UCF-101' / clip).unlink()
  data = ucf_config(tmp_path, folder)
  with pytest.raises(builders.BuildError, match=f'{clip}.*--allow_missing'):
    datasets.build(data)
  directory = datasets.build(data, allow_missing=True)
  assert [
    (s['source'], s['reason']) for s in builders.read_skipped(directory)
  ] == [(clip, 'missing')]
  assert len(builders.open_source(directory, 'train', '01')) == 2


def test_damaged_listed_clip_stops_the_build(official, tmp_path):
  folder = copy_of(official, tmp_path)
  clip = 'Diving/v_Diving_g01_c01.avi'
  (folder / 'UCF-101' / clip).write_bytes(b'RIFF nothing more')
  data = ucf_config(tmp_path, folder)
  with pytest.raises(builders.BuildError, match=f'1 listed clips.*{clip}'):
    datasets.build(data)
  directory = datasets.build(data, allow_missing=True)
  (skipped,) = builders.read_skipped(directory)
  assert (skipped['source'], skipped['reason']) == (clip, 'undecodable')


def test_unlisted_clips_are_reported(official, tmp_path):
  folder = copy_of(official, tmp_path)
  there = folder / 'UCF-101/Diving/v_Diving_g01_c01.avi'
  shutil.copy(there, there.with_name('v_Diving_g09_c01.avi'))
  directory = datasets.build(ucf_config(tmp_path, folder))
  (skipped,) = builders.read_skipped(directory)
  assert skipped['reason'] == 'unlisted'
  info = [reader.read_info(d)['fingerprint'] for d in (directory, official[1])]
  assert info[0] == info[1]


def test_every_other_file_has_its_reason(official, tmp_path):
  folder = copy_of(official, tmp_path)
  hidden = folder / 'UCF-101/Diving/.ipynb_checkpoints'
  hidden.mkdir()
  clip = folder / 'UCF-101/Diving/v_Diving_g01_c01.avi'
  shutil.copy(clip, hidden)
  (folder / 'UCF-101/Diving/more.avi').write_bytes(clip.read_bytes())
  (folder / 'readme.txt').write_text('a text')
  directory = datasets.build(ucf_config(tmp_path, folder))
  skipped = builders.read_skipped(directory)
  assert {skip['source']: skip['reason'] for skip in skipped} == {
    'UCF-101/Diving/.ipynb_checkpoints/': 'hidden',
    'UCF-101/Diving/more.avi': 'unlisted',
    'readme.txt': 'text',
  }


def test_bad_lists_are_named(official, tmp_path):
  folder = copy_of(official, tmp_path)
  lists = folder / 'ucfTrainTestlist'
  data = ucf_config(tmp_path, folder)
  train = lists / 'trainlist01.txt'
  good = train.read_text()
  train.write_text(good.replace(' 2', ' 3'))
  with pytest.raises(builders.BuildError, match='does not fit classInd'):
    datasets.build(data)
  train.write_text(good + (lists / 'testlist01.txt').read_text())
  with pytest.raises(builders.BuildError, match='train list and in the test'):
    datasets.build(data)
  (lists / 'classInd.txt').unlink()
  with pytest.raises(builders.BuildError, match='lists are missing'):
    datasets.build(data)


def test_without_the_videos_the_built_dataset_is_found(official, tmp_path):
  folder = copy_of(official, tmp_path)
  data = ucf_config(tmp_path, folder)
  directory = datasets.build(data)
  shutil.rmtree(folder)
  assert datasets.ensure(data) == directory
  data.encoding = 'jpeg'
  with pytest.raises(builders.MissingDataset, match='set data.source'):
    datasets.ensure(data)
  shutil.copytree(official[0], folder)
  (folder / 'UCF-101/another.avi').write_text('another listing')
  data.encoding = 'webp'
  assert datasets.build(data) != directory
  shutil.rmtree(folder)
  with pytest.raises(ValueError, match='several datasets'):
    datasets.ensure(data)


def test_real_clips_in_decode_order(shared, tmp_path):
  data = ucf_config(tmp_path, shared / 'clips/ucf101', resolution=64)
  directory = datasets.build(data)
  train = builders.open_source(directory, 'train')
  test = builders.open_source(directory, 'validation')
  assert set(train.index['group']) == {'BaseballPitch/g01', 'Biking/g05'}
  assert set(test.index['label']) == {0, 70}
  assert train.info['num_classes'] == 101
  # Timestamps of this one run backwards 54 times.
  rows = test.index['row'][test.index['group'] == 'ApplyEyeMakeup/g01']
  stored = list(itertools.chain(*(test.frames(int(row)) for row in rows)))
  name = 'ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi'
  with av.open(str(shared / 'clips/ucf101/UCF-101' / name)) as container:
    frames = list(container.decode(video=0))
  assert len(stored) == len(frames) == 164
  for encoded, frame in zip(stored[::8], frames[::8]):
    image = frame.to_ndarray(format='rgb24')[:, 40:280]
    # Area means over 3.75 px, here as exact sums over a 4x finer grid.
    fine = image.repeat(4, 0).repeat(4, 1).reshape(64, 15, 64, 15, 3)
    error = np.abs(coding.decode_frame(encoded) - fine.mean((1, 3)))
    assert error.max() < 1.01
