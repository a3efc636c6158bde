"""Folders of videos: labels, who is held out, what is skipped."""

import shutil

import pytest

from tests import tiny_videos
from vdm.config import schema
from vdm.data import builders
from vdm.data import coding
from vdm.data.builders import reader
from vdm.preparation import datasets


def folder_config(root, source, **changes):
  data = schema.default().data
  data.name, data.resolution = 'video_folder', 32
  data.root, data.source = str(root), str(source)
  data.update(changes)
  return data


def levels(source, row):
  return tiny_videos.read_levels(
    map(coding.decode_frame, source.frames(int(row)))
  )


def test_whole_recordings_are_held_out(tmp_path):
  videos = tmp_path / 'videos'
  (videos / 'cats/deep').mkdir(parents=True)
  (videos / 'dogs').mkdir()
  tiny_videos.write_video(
    videos / 'cats/deep/a.mp4', tiny_videos.grey_steps(10)
  )
  tiny_videos.write_video(videos / 'dogs/b_1.MKV', tiny_videos.grey_steps(20))
  tiny_videos.write_video(videos / 'dogs/b_2.MKV', tiny_videos.grey_steps(5))
  tiny_videos.write_video(videos / 'c.avi', tiny_videos.grey_steps(4))
  (videos / 'notes.txt').write_text('not a video')
  (videos / '._a.mp4').write_text('what macOS leaves')
  directory = datasets.build(
    folder_config(tmp_path, videos, group=r'^(.*/b)_', validation=0.4)
  )
  train = builders.open_source(directory, 'train')
  held_out = builders.open_source(directory, 'validation')
  assert train.info['label_names'] == ['cats', 'dogs']
  sides = [set(source.index['group']) for source in (train, held_out)]
  assert sides[0] | sides[1] == {'c.avi', 'cats/deep/a.mp4', 'dogs/b'}
  # 0.4 of three is one; the two files of one recording go together.
  assert not sides[0] & sides[1] and len(sides[1]) == 1
  n = {
    name: (source.index['n'][i], source.index['label'][i])
    for source in (train, held_out)
    for i, name in enumerate(source.index['id'])
  }
  assert n == {
    'c.avi:000000': (4, -1),
    'cats/deep/a.mp4:000000': (10, 0),
    'dogs/b_1.MKV:000000': (20, 1),
    'dogs/b_2.MKV:000000': (5, 1),
  }
  assert builders.read_skipped(directory) == []
  assert not list((tmp_path / 'video_folder').glob('*.staging'))


def test_of_one_recording_the_end_is_held_out(tmp_path):
  videos = tmp_path / 'videos'
  videos.mkdir()
  tiny_videos.write_video(videos / 'a.mp4', tiny_videos.grey_steps(10))
  directory = datasets.build(folder_config(tmp_path, videos, validation=0.2))
  train = builders.open_source(directory, 'train')
  held_out = builders.open_source(directory, 'validation')
  assert levels(train, train.index['row'][0]) == list(range(8))
  assert levels(held_out, held_out.index['row'][0]) == [8, 9]
  # Shots of their own: no window reaches from one into the other.
  assert not set(train.index['shot']) & set(held_out.index['shot'])


def test_shots_are_cut_into_clips(tmp_path):
  videos = tmp_path / 'videos'
  videos.mkdir()
  for number, n in enumerate((5, 9, 3)):
    steps = tiny_videos.grey_steps(n) + number
    tiny_videos.write_video(videos / f'{number}.mp4', steps)
  directory = datasets.build(
    folder_config(tmp_path, videos, clip_frames=4, min_frames=4)
  )
  clips = {}
  for split in ('train', 'validation'):
    source = builders.open_source(directory, split)
    for i, name in enumerate(source.index['id']):
      clips[name] = levels(source, source.index['row'][i])
  assert clips == {
    '0.mp4:000000:000000:000000': [0, 1, 2, 3],
    '1.mp4:000000:000000:000000': [0, 1, 2, 3],
    '1.mp4:000000:000004:000000': [4, 5, 6, 7],
  }
  (skipped,) = builders.read_skipped(directory)
  assert (skipped['source'], skipped['reason']) == ('2.mp4', 'too_short')


def test_ten_sources_are_held_out_whole(tmp_path):
  videos = tmp_path / 'videos'
  videos.mkdir()
  for number in range(10):
    steps = tiny_videos.grey_steps(5)[: 3 + number % 3]
    tiny_videos.write_video(videos / f'{number}.mp4', steps + number)
  shutil.copy(videos / '3.mp4', videos / 'copy_of_3.mp4')
  directory = datasets.build(folder_config(tmp_path, videos))
  train = builders.open_source(directory, 'train').index
  held_out = builders.open_source(directory, 'validation').index
  assert len(train['id']) + len(held_out['id']) == 11
  assert 1 <= len(held_out['id']) <= 2
  # A copy stands on the side of its original.
  assert not set(train['source_sha256']) & set(held_out['source_sha256'])
  # Another name, another order: the same are held out.
  for number in range(10):
    (videos / f'{number}.mp4').rename(videos / f'x{9 - number}.mp4')
  again = datasets.build(folder_config(tmp_path, videos))
  renamed = builders.open_source(again, 'validation').index
  assert again != directory
  assert set(renamed['source_sha256']) == set(held_out['source_sha256'])


def test_unusable_files_are_skipped_with_reasons(shared, tmp_path):
  videos = tmp_path / 'videos'
  shutil.copytree(shared / 'clips/broken', videos)
  tiny_videos.write_video(videos / 'good.mp4', tiny_videos.grey_steps(5))
  directory = datasets.build(folder_config(tmp_path, videos, resolution=64))
  reasons = {
    skipped['source']: skipped['reason']
    for skipped in builders.read_skipped(directory)
  }
  assert reasons == {
    '-video-with-dash-.mp4': 'too_small',
    'audio_only.mp4': 'no_video_stream',
    'decord_corrupted.mp4': 'undecodable',
    'decord_unordered.mov': 'too_small',
    'empty_0_bytes.webm': 'empty',
    'header_only_258_bytes.mp4': 'no_video_stream',
    'no_video_stream.mp4': 'no_video_stream',
    'stub_44_bytes.mp4': 'undecodable',
    'truncated_no_moov.mp4': 'undecodable',
  }
  assert reader.read_info(directory)['frames'] == 5


def test_stored_frames_are_those_of_decode(shared, tmp_path):
  source = shared / 'clips/driving'
  directory = datasets.build(folder_config(tmp_path, source))
  held_out = builders.open_source(directory, 'validation')
  train = builders.open_source(directory, 'train')
  # 38 and 221 frames at 25 a second.
  n = [part.index['n'].sum() for part in (train, held_out)]
  assert sorted(n) == [38, 221]
  path = str(source / 'drive_test_video.mp4')
  frames = list(tiny_videos.decode(path, frame_rate=25.0, resolution=32))
  rows = [
    (part, int(row))
    for part in (train, held_out)
    for row in part.index['row'][part.index['group'] == 'drive_test_video.mp4']
  ]
  stored = [f for part, row in rows for f in part.frames(row)]
  assert stored == [coding.encode_frame(frame, 'webp') for frame in frames]


def test_empty_folder_says_so(tmp_path):
  (tmp_path / 'videos').mkdir()
  with pytest.raises(builders.BuildError, match='there are no sources'):
    datasets.build(folder_config(tmp_path, tmp_path / 'videos'))
