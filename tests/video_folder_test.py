"""Folders of videos: labels, who is held out, what is skipped."""

import json
import os
import shutil

import av
from PIL import Image
import pytest

from tests import tiny_videos
from vdm.config import schema
from vdm.data import builders
from vdm.data import coding
from vdm.data.builders import reader
from vdm.media import video_files
from vdm.preparation import captions
from vdm.preparation import clip_files
from vdm.preparation import data_report
from vdm.preparation import datasets
from vdm.preparation import manifest
from vdm.preparation import staging_area
from vdm.preparation import video_folder


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
  reasons = {s['source']: s['reason'] for s in builders.read_skipped(directory)}
  assert reasons == {'._a.mp4': 'hidden', 'notes.txt': 'text'}
  assert not list((tmp_path / 'video_folder').glob('*.staging'))


@pytest.mark.parametrize('source', ['', 'a.org'])
def test_without_publishers_recordings_are_judged_by_their_marks(source):
  def result(name, overlay):
    shot = staging_area.Shot(0, 9, '', {'overlay': overlay}, [], 9)
    return staging_area.Result(name, facts={}, shots=[shot])

  results = [result('a.mp4', 1.0), result('b.mp4', 1.0), result('c.mp4', 0.0)]
  rows = {name: captions.Row(name, 'words', source) for name in 'abc'}
  data = folder_config('', '')
  data.screening.update(rules=('overlay',), max_overlay_sources=0.5)
  video_folder._group(results, rows, data)
  left_out = [bool(result.shots[0].reason) for result in results]
  # Two thirds of what one publisher shows are marked.
  assert left_out == ([True] * 3 if source else [True, True, False])


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


def labels_of(directory):
  """Returns {group: name of its label}."""
  found = {}
  for split in ('train', 'validation'):
    source = builders.open_source(directory, split)
    names = [*source.info['label_names'], '']
    for group, label in zip(source.index['group'], source.index['label']):
      found[str(group)] = names[label]
  return found


def notes_of(directory):
  """Returns what the manifest says of all of the dataset."""
  with open(os.path.join(directory, manifest.FILE)) as file:
    notes = json.loads(file.readline())['notes']
  with open(os.path.join(directory, data_report.REPORT_FILE)) as file:
    page = file.read()
  assert all(f'<p>{note}</p>' in page for note in notes)
  return notes


@pytest.mark.parametrize('is_zip', [False, True])
def test_a_folder_around_the_classes_is_no_class(tmp_path, is_zip):
  videos = tmp_path / 'videos'
  for number, name in enumerate(('cats/a.mp4', 'dogs/b.mp4', 'dogs/c.mp4')):
    path = videos / 'export/dataset' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tiny_videos.write_video(path, tiny_videos.noise(5, seed=number))
  (videos / 'readme').mkdir()
  (videos / 'readme/readme.txt').write_text('no videos here')
  # What notebooks and macOS leave: older, but no better than the original.
  for copy in ('export/dataset/cats/.ipynb_checkpoints', '__MACOSX/cats'):
    (videos / copy).mkdir(parents=True)
    shutil.copy(videos / 'export/dataset/cats/a.mp4', videos / copy / 'a.mp4')
  if is_zip:
    shutil.make_archive(str(tmp_path / 'videos'), 'zip', videos)
    videos = tmp_path / 'videos.zip'
  data = folder_config(tmp_path, videos)
  data.screening.rules = ('duplicate',)
  directory = datasets.build(data)
  assert labels_of(directory) == {
    'export/dataset/cats/a.mp4': 'cats',
    'export/dataset/dogs/b.mp4': 'dogs',
    'export/dataset/dogs/c.mp4': 'dogs',
  }
  reasons = {s['source']: s['reason'] for s in builders.read_skipped(directory)}
  assert reasons == {
    '__MACOSX/': 'hidden',
    'export/dataset/cats/.ipynb_checkpoints/': 'hidden',
    'readme/readme.txt': 'text',
  }
  (note,) = notes_of(directory)
  assert 'All videos lie in the folder export/dataset/' in note


def test_one_folder_of_videos_makes_no_class(tmp_path):
  (tmp_path / 'videos/dataset').mkdir(parents=True)
  path = tmp_path / 'videos/dataset/a.mp4'
  tiny_videos.write_video(path, tiny_videos.grey_steps(5))
  directory = datasets.build(folder_config(tmp_path, tmp_path / 'videos'))
  assert labels_of(directory) == {'dataset/a.mp4': ''}
  assert reader.read_info(directory)['num_classes'] == 0


def test_a_video_beside_the_folder_keeps_it_a_class(tmp_path):
  (tmp_path / 'videos/cats').mkdir(parents=True)
  for number, name in enumerate(('cats/a.mp4', 'b.mp4')):
    path = tmp_path / 'videos' / name
    tiny_videos.write_video(path, tiny_videos.grey_steps(5 + number))
  directory = datasets.build(folder_config(tmp_path, tmp_path / 'videos'))
  assert labels_of(directory) == {'cats/a.mp4': 'cats', 'b.mp4': ''}
  assert notes_of(directory) == []


def test_labels_with_a_direction_are_warned_of(tmp_path, caplog):
  for number, name in enumerate(('turn_left', 'turn_right', 'stop')):
    (tmp_path / 'videos' / name).mkdir(parents=True)
    path = tmp_path / 'videos' / name / 'a.mp4'
    tiny_videos.write_video(path, tiny_videos.grey_steps(5 + number))
  directory = datasets.build(folder_config(tmp_path, tmp_path / 'videos'))
  (note,) = notes_of(directory)
  assert 'turn_left, turn_right.' in note and note in caplog.text
  directional = reader.read_info(directory)['directional_labels']
  assert directional == ['turn_left', 'turn_right']


def test_links_are_followed_or_named(tmp_path):
  videos, elsewhere = tmp_path / 'videos', tmp_path / 'elsewhere'
  (videos / 'cats').mkdir(parents=True)
  elsewhere.mkdir()
  tiny_videos.write_video(videos / 'cats/a.mp4', tiny_videos.grey_steps(5))
  tiny_videos.write_video(elsewhere / 'b.mp4', tiny_videos.grey_steps(7))
  (videos / 'dogs').symlink_to(elsewhere)
  directory = datasets.build(folder_config(tmp_path, videos))
  assert labels_of(directory) == {'cats/a.mp4': ''}
  (skipped,) = builders.read_skipped(directory)
  assert (skipped['source'], skipped['reason']) == ('dogs/', 'outside_link')
  assert 'data.follow_links=True' in skipped['message']
  directory = datasets.build(folder_config(tmp_path, videos, follow_links=True))
  assert labels_of(directory) == {'cats/a.mp4': 'cats', 'dogs/b.mp4': 'dogs'}
  assert builders.read_skipped(directory) == []


def test_a_folder_of_animations(tmp_path):
  videos = tmp_path / 'videos'
  videos.mkdir()
  for number in range(3):
    frames = tiny_videos.grey_steps(6 + number)
    video_files.write_gif(videos / f'{number}.gif', frames, 12.5)
  images = [Image.fromarray(image) for image in frames]
  images[0].save(videos / 'still.gif')
  images[0].save(videos / 'a.webp', save_all=True, append_images=images[1:])
  images[0].save(videos / 'b.png')
  directory = datasets.build(folder_config(tmp_path, videos, min_frames=2))
  found = {}
  for split in ('train', 'validation'):
    source = builders.open_source(directory, split)
    for i, name in enumerate(source.index['group']):
      found[str(name)] = levels(source, source.index['row'][i])
  # At 25 frames a second, each is shown twice.
  assert found == {
    f'{number}.gif': [k // 2 for k in range(2 * (6 + number) - 1)]
    for number in range(3)
  }
  reasons = {s['source']: s['reason'] for s in builders.read_skipped(directory)}
  assert reasons == {
    'a.webp': 'picture',
    'b.png': 'picture',
    'still.gif': 'too_short',
  }


@pytest.mark.parametrize(
  'suffix, codec',
  [
    ('.mpg', 'mpeg1video'),
    ('.mpeg', 'mpeg2video'),
    ('.flv', 'flv'),
    ('.ts', 'mpeg2video'),
    ('.m2ts', 'mpeg2video'),
    ('.wmv', 'wmv2'),
    ('.mp4', 'mpeg4'),
    ('.m4v', 'mpeg4'),
    ('.mov', 'mpeg4'),
    ('.avi', 'mpeg4'),
    ('.mkv', 'mpeg4'),
    ('.webm', 'libvpx'),
    ('.3gp', 'mpeg4'),
    ('.ogv', 'libtheora'),
    ('.y4m', 'rawvideo'),
  ],
)
def test_what_is_prepared_is_evaluated(tmp_path, suffix, codec):
  (tmp_path / 'videos').mkdir()
  path = tmp_path / f'videos/a{suffix.upper()}'
  if codec not in av.codecs_available:
    pytest.skip(f'no encoder {codec}')
  tiny_videos.write_video(path, tiny_videos.grey_steps(8), codec=codec)
  directory = datasets.build(
    folder_config(tmp_path, tmp_path / 'videos', validation=0.0)
  )
  assert levels(builders.open_source(directory, 'train'), 0) == list(range(8))
  clips, _ = clip_files.read_clips(
    tmp_path / 'videos', frames=8, resolution=32, num=1
  )
  assert tiny_videos.read_levels(clips[0]) == list(range(8))


def test_why_nothing_came_out(tmp_path):
  (tmp_path / 'videos').mkdir()
  for name in ('a.txt', 'b.txt', 'c.webp'):
    (tmp_path / 'videos' / name).write_text('no video')
  with pytest.raises(builders.BuildError, match='2 text, 1 picture'):
    datasets.build(folder_config(tmp_path, tmp_path / 'videos'))


def test_empty_folder_says_so(tmp_path):
  (tmp_path / 'videos').mkdir()
  with pytest.raises(builders.BuildError, match='there are no sources'):
    datasets.build(folder_config(tmp_path, tmp_path / 'videos'))
