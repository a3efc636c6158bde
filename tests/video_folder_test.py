"""Folders of videos: labels, who is held out, what is skipped."""

import shutil

import pytest

from tests import tiny_videos
from vdm import config
from vdm.data import builders
from vdm.data import video
from vdm.data.builders import reader


def folder_config(root, source, **changes):
  data = config.default().data
  data.name, data.resolution = 'video_folder', 32
  data.root, data.source = str(root), str(source)
  data.update(changes)
  return data


def levels(source, row):
  return tiny_videos.read_levels(
    map(video.decode_frame, source.frames(int(row)))
  )


def test_few_sources_give_the_last_fifth_of_each(tmp_path):
  videos = tmp_path / 'videos'
  (videos / 'cats/deep').mkdir(parents=True)
  (videos / 'dogs').mkdir()
  tiny_videos.write_video(
    videos / 'cats/deep/a.mp4', tiny_videos.grey_steps(10)
  )
  tiny_videos.write_video(videos / 'dogs/b.MKV', tiny_videos.grey_steps(20))
  tiny_videos.write_video(videos / 'c.avi', tiny_videos.grey_steps(4))
  (videos / 'notes.txt').write_text('not a video')
  (videos / '._a.mp4').write_text('what macOS leaves')
  directory = builders.build(folder_config(tmp_path, videos))
  train = builders.open_source(directory, 'train')
  held_out = builders.open_source(directory, 'validation')
  assert train.info['label_names'] == ['cats', 'dogs']
  groups = ['c.avi', 'cats/deep/a.mp4', 'dogs/b.MKV']
  assert train.index['group'].tolist() == groups
  assert train.index['label'].tolist() == [-1, 0, 1]
  assert train.index['n'].tolist() == [4, 8, 16]
  # Four frames have no fifth.
  assert held_out.index['n'].tolist() == [2, 4]
  assert levels(train, train.index['row'][1]) == list(range(8))
  assert levels(held_out, held_out.index['row'][0]) == [8, 9]
  # Shots of their own: no window reaches from one into the other.
  assert not set(train.index['shot']) & set(held_out.index['shot'])
  assert builders.read_skipped(directory) == []


def test_ten_sources_are_held_out_whole(tmp_path):
  videos = tmp_path / 'videos'
  videos.mkdir()
  for number in range(10):
    steps = tiny_videos.grey_steps(5)[: 3 + number % 3]
    tiny_videos.write_video(videos / f'{number}.mp4', steps + number)
  shutil.copy(videos / '3.mp4', videos / 'copy_of_3.mp4')
  directory = builders.build(folder_config(tmp_path, videos))
  train = builders.open_source(directory, 'train').index
  held_out = builders.open_source(directory, 'validation').index
  assert len(train['id']) + len(held_out['id']) == 11
  assert 1 <= len(held_out['id']) <= 2
  # A copy stands on the side of its original.
  assert not set(train['source_sha256']) & set(held_out['source_sha256'])
  # Another name, another order: the same are held out.
  for number in range(10):
    (videos / f'{number}.mp4').rename(videos / f'x{9 - number}.mp4')
  again = builders.build(folder_config(tmp_path, videos))
  renamed = builders.open_source(again, 'validation').index
  assert again != directory
  assert set(renamed['source_sha256']) == set(held_out['source_sha256'])


def test_unusable_files_are_skipped_with_reasons(shared, tmp_path):
  videos = tmp_path / 'videos'
  shutil.copytree(shared / 'clips/broken', videos)
  tiny_videos.write_video(videos / 'good.mp4', tiny_videos.grey_steps(5))
  directory = builders.build(folder_config(tmp_path, videos, resolution=64))
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
  directory = builders.build(folder_config(tmp_path, source))
  held_out = builders.open_source(directory, 'validation')
  train = builders.open_source(directory, 'train')
  # 38 and 221 frames at 25 a second.
  assert train.index['n'].sum() == 177 + 31
  assert held_out.index['n'].tolist() == [44, 7]
  path = str(source / 'drive_test_video.mp4')
  frames = list(video.decode(path, frame_rate=25.0, resolution=32))
  rows = [
    (part, int(row))
    for part in (train, held_out)
    for row in part.index['row'][part.index['group'] == 'drive_test_video.mp4']
  ]
  stored = [f for part, row in rows for f in part.frames(row)]
  assert stored == [video.encode_frame(frame, 'webp') for frame in frames]


def test_empty_folder_says_so(tmp_path):
  (tmp_path / 'videos').mkdir()
  with pytest.raises(builders.BuildError, match='there are no sources'):
    builders.build(folder_config(tmp_path, tmp_path / 'videos'))
