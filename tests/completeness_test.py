"""Completeness: what is hidden or repeated is not missing; what is cut is."""

import struct

import av
import numpy as np
from prepare_file_test import make_data
from prepare_file_test import prepare
import pytest
from screening_test import pan

from tests import tiny_videos
from vdm.preparation import corpus
from vdm.preparation import decoding
from vdm.preparation import inspection
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import video_dataset


def reason(path):
  """Why a file is refused; '' if it is not."""
  try:
    inspection.inspect(str(path))
  except decoding.VideoError as error:
    return error.reason
  return ''


def num_frames(path):
  return len(inspection.inspect(str(path)).times)


def with_edit_list(data, start, seconds):
  """An MPEG-4 file that shows only this part of its video."""
  data = bytearray(data)

  def scale(box):
    place = data.find(box) + 16
    return struct.unpack('>I', data[place : place + 4])[0]

  place = data.find(b'elst') + 12
  offset = struct.unpack('>i', data[place + 4 : place + 8])[0]
  data[place : place + 8] = struct.pack(
    '>Ii',
    round(seconds * scale(b'mvhd')),
    offset + round(start * scale(b'mdhd')),
  )
  return bytes(data)


@pytest.mark.parametrize(
  'start, seconds, expected', [(0.4, 1.2, 30), (0.0, 1.0, 25), (0.2, 1.4, 35)]
)
def test_what_an_edit_list_hides_is_not_missing(
  tmp_path, start, seconds, expected
):
  path = tmp_path / 'edited.mp4'
  options = {'g': '8', 'threads': '1'}
  tiny_videos.write_video(path, pan(50), codec='libx264', options=options)
  whole = path.read_bytes()
  path.write_bytes(with_edit_list(whole, start, seconds))
  info = inspection.inspect(str(path))
  assert len(info.times) == expected == info.num_declared
  assert not info.doubt
  # And what is really missing still is.
  path.write_bytes(path.read_bytes()[: len(whole) // 2])
  assert reason(path) in ('truncated', 'undecodable')


def avi_chunks(data):
  """The head of an AVI and its (name, bytes) chunks of pictures."""
  place = data.find(b'movi') + 4
  end = place - 4 + struct.unpack('<I', data[place - 8 : place - 4])[0]
  head, chunks = data[: place - 12], []
  while place < end:
    name, size = struct.unpack('<4sI', data[place : place + 8])
    chunks.append((name, data[place + 8 : place + 8 + size]))
    place += 8 + size + size % 2
  return head, chunks


def make_avi(head, chunks):
  """The reverse."""
  movi, index = b'movi', b''
  for number, (name, data) in enumerate(chunks):
    flags = 0 if number else 16
    index += name + struct.pack('<III', flags, len(movi), len(data))
    movi += name + struct.pack('<I', len(data)) + data + bytes(len(data) % 2)
  whole = head + b'LIST' + struct.pack('<I', len(movi)) + movi
  whole += b'idx1' + struct.pack('<I', len(index)) + index
  return whole[:4] + struct.pack('<I', len(whole) - 8) + whole[8:]


def test_empty_chunks_repeat_a_picture(tmp_path):
  path = tmp_path / 'repeats.avi'
  tiny_videos.write_video(path, pan(40), options={'g': '1'})
  head, chunks = avi_chunks(path.read_bytes())
  for place in (10, 11, 12, 25, 37, 38, 39):
    chunks[place] = chunks[place][0], b''
  path.write_bytes(make_avi(head, chunks))
  assert num_frames(path) == 33
  result, _ = prepare(path, tmp_path)
  assert result.shots[0].n == 37  # Those at the end add nothing.
  assert result.shots[0].repeats[9] == 4
  # Without them three frames more are missing than the index says.
  path.write_bytes(make_avi(head, chunks[:-6]))
  assert reason(path) == 'truncated'


def test_pictures_that_repeat_the_last_one_are_not_missing(tmp_path):
  # XviD codes a still picture as one of a few bytes, without content.
  path = tmp_path / 'still.avi'
  tiny_videos.write_video(path, pan(24))
  head, chunks = avi_chunks(path.read_bytes())
  for place in (7, 8, 9):
    name, data = chunks[place]
    bits = bytearray(data[:6])
    # Start code, type, time (0, marker, 5 bits), marker, 'is coded'.
    bits[5] &= ~(1 << 7 - 42 % 8)
    chunks[place] = name, bytes(bits[:6]) + b'\x7f'
  path.write_bytes(make_avi(head, chunks))
  with av.open(str(path)) as container:
    assert sum(1 for _ in container.decode(video=0)) == 21
  assert num_frames(path) == 21


def test_one_missing_frame_is_forgiven_for_packed_b_frames_alone(tmp_path):
  path = tmp_path / 'one.avi'
  for codec, expected in (('mjpeg', 'truncated'), ('mpeg4', '')):
    with av.open(str(path), 'w') as container:
      stream = container.add_stream(codec, rate=25)
      stream.width, stream.height = 128, 72
      stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
      for image in pan(20):
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
    data = path.read_bytes()
    assert reason(path) == ''
    last = data.rfind(b'00dc', 0, data.find(b'idx1'))
    path.write_bytes(data[:last] + b'xxxx' + data[last + 4 :])
    assert reason(path) == expected, codec


def write_with_sound(path, n, sound_seconds, video_codec):
  with av.open(str(path), 'w') as container:
    video = container.add_stream(video_codec, rate=25)
    video.width, video.height, video.pix_fmt = 128, 72, 'yuv420p'
    sound = container.add_stream('libopus', rate=48_000, layout='mono')
    for number in range(int(sound_seconds * 50)):
      silence = np.zeros((1, 960), np.int16)
      frame = av.AudioFrame.from_ndarray(silence, 's16', 'mono')
      frame.sample_rate, frame.pts = 48_000, number * 960
      container.mux(sound.encode(frame))
    container.mux(sound.encode())
    for image in pan(n):
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      container.mux(video.encode(frame))
    container.mux(video.encode())


@pytest.mark.parametrize('suffix', ['webm', 'mkv'])
def test_sound_may_be_longer_than_the_pictures(tmp_path, suffix):
  path = tmp_path / f'sound.{suffix}'
  write_with_sound(path, 25, 6.0, 'libvpx')
  assert num_frames(path) == 25
  # Also where only the file as a whole has a duration.
  data = path.read_bytes()
  assert data.count(b'DURATION') == 2
  path.write_bytes(data.replace(b'DURATION', b'DURATIOM'))
  assert num_frames(path) == 25


@pytest.mark.parametrize('suffix', ['webm', 'mkv'])
@pytest.mark.parametrize('sound_seconds', [0.2, 6.0])
@pytest.mark.parametrize('known', [True, False])
def test_a_cut_matroska_file_does_not_pass(
  tmp_path, suffix, sound_seconds, known
):
  path = tmp_path / f'cut.{suffix}'
  write_with_sound(path, 50, sound_seconds, 'libvpx')
  data = path.read_bytes()
  if not known:  # The size of the segment, as of a live recording.
    place = data.find(b'\x18\x53\x80\x67') + 4
    data = data[:place] + b'\x01' + b'\xff' * 7 + data[place + 8 :]
    path.write_bytes(data)
  assert num_frames(path) == 50
  path.write_bytes(data[: int(len(data) * 0.7)])
  assert reason(path) in ('truncated', 'undecodable')
  path.write_bytes(data[: len(data) - 2000])
  assert not known or reason(path) == 'truncated'


def declare(data, n):
  """An AVI whose headers declare n frames."""
  data = bytearray(data)
  for place in (data.find(b'avih') + 24, data.find(b'strh') + 40):
    data[place : place + 4] = struct.pack('<I', n)
  return bytes(data)


def test_more_frames_than_declared_are_noticed_and_lose_to_the_original(
  tmp_path,
):
  folder = tmp_path / 'videos'
  folder.mkdir()
  sound, damaged = folder / 'z_sound.avi', folder / 'a_damaged.avi'
  tiny_videos.write_video(sound, pan(60))
  head, chunks = avi_chunks(sound.read_bytes())
  chunks = chunks[:40] + chunks[20:40] + chunks[40:] + chunks[43:60]
  damaged.write_bytes(make_avi(declare(head, 60), chunks))
  info = inspection.inspect(str(damaged))
  assert (len(info.times), info.num_declared) == (97, 60)
  assert '60' in info.doubt and '97' in info.doubt
  assert not inspection.inspect(str(sound)).doubt
  data = make_data(tmp_path, folder)
  build = video_dataset.Build(data, staging_area.Staging(str(tmp_path / 's')))
  results = build.prepare(sources.list_folder(str(folder)))
  pairs = corpus.drop_duplicates(results, 0.2)
  assert pairs
  kept = {r.name for r in results for s in r.shots if not s.reason}
  assert 'z_sound.avi' in kept
  (of_damaged,) = [r for r in results if r.name == damaged.name]
  assert of_damaged.facts['doubt']
  assert {s.reason for s in of_damaged.shots} >= {'duplicate'}
