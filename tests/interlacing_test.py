"""Interlacing is seen in the pictures, whatever flags say, and undone."""

import av
import cv2
import numpy as np
from prepare_file_test import prepare
import pytest
from screening_test import pan

from vdm.data import coding
from vdm.preparation import clip_files
from vdm.preparation import inspection
from vdm.preparation import interlacing
from vdm.preparation import prepare_file

SIZE = (144, 192)


def fields(n, seed=0):
  """Smooth pictures that pan by 4 px, 2 n of them, uint8 [2n h w 3]."""
  frames = pan(2 * n, seed=seed, size=SIZE)
  return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])


def planes(picture):
  """The three planes of a picture in YUV 4:2:0."""
  frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
  packed = frame.to_ndarray(format='yuv420p').ravel()
  n, half = SIZE[0] * SIZE[1], (SIZE[0] // 2, SIZE[1] // 2)
  luma, chroma = packed[:n].reshape(SIZE), packed[n:].reshape(2, *half)
  return [luma, *chroma]


def weave(pictures, order):
  """Pictures of two fields each, the first of which is the even rows in tff.

  As a camera does, which has a colour of its own for either field.
  """
  frames = []
  for first, second in zip(pictures[0::2], pictures[1::2]):
    even, odd = (first, second) if order == 'tff' else (second, first)
    woven = []
    for plane, other in zip(planes(even), planes(odd)):
      plane[1::2] = other[1::2]
      woven.append(plane.ravel())
    packed = np.concatenate(woven).reshape(-1, SIZE[1])
    frames.append(av.VideoFrame.from_ndarray(packed, format='yuv420p'))
  return frames


def whole(pictures):
  return [av.VideoFrame.from_ndarray(p, format='rgb24') for p in pictures]


def luma(images):
  return np.asarray(images, float) @ [0.299, 0.587, 0.114]


def combs(images):
  images = luma(images)
  return np.abs(2 * images[:, 1:-1] - images[:, 2:] - images[:, :-2]).mean()


def write(path, frames, flag=''):
  options = {'crf': '10', 'threads': '1', 'preset': 'veryfast'}
  if flag:
    options['x264-params'] = f'{flag}=1'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25, options=options)
    stream.height, stream.width = SIZE
    stream.pix_fmt = 'yuv420p'
    for frame in frames:
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.mark.parametrize('flag', ['', 'right', 'wrong'])
@pytest.mark.parametrize('order', ['tff', 'bff'])
def test_fields_are_found_and_undone(tmp_path, monkeypatch, order, flag):
  pictures = fields(40)
  other = {'tff': 'bff', 'bff': 'tff'}[order]
  flags = {'': '', 'right': order, 'wrong': other}
  path = tmp_path / 'woven.mp4'
  woven = weave(pictures, order)
  write(path, woven, flag=flags[flag])
  assert inspection.inspect(str(path)).field_order == order
  settings = dict(resolution=144, frame_rate=25.0)
  result, staging = prepare(path, tmp_path, **settings)
  assert result.facts['field_order'] == order
  (shot,) = result.shots
  stored = list(staging.frames(result.name, shot))
  assert len(stored) == 40
  images = np.stack([coding.decode_frame(data) for data in stored])
  # The picture of the first field, whole.
  truth = pictures[0::2, :, 24:168]
  woven = np.stack([f.to_ndarray(format='rgb24') for f in woven])[:, :, 24:168]
  assert combs(woven) > 10 * combs(truth)
  assert combs(images) < 2.5 * combs(truth)
  error, before = (
    np.abs(luma(x) - luma(truth))[2:-2].mean() for x in (images, woven)
  )
  assert error < 0.5 * before
  # The second decoding gives the same.
  monkeypatch.setattr(prepare_file, '_CACHE_BYTES', 100_000)
  _, again = prepare(path, tmp_path / 'again', **settings)
  assert list(again.frames(result.name, shot)) == stored
  clips, _ = clip_files.read_clips(
    path, frames=40, resolution=144, num=1, sampling='first'
  )
  assert combs(clips[0]) < 2.5 * combs(truth)


@pytest.mark.parametrize('flag', ['', 'tff'])
def test_whole_pictures_stay_as_they_are(tmp_path, flag):
  path = tmp_path / 'whole.mp4'
  write(path, whole(fields(20)), flag=flag)
  assert inspection.inspect(str(path)).field_order == ''


def test_film_shown_as_video_has_fields(tmp_path):
  # Four pictures become five by fields of the first, 2, 3, 2, 3 times.
  film = fields(80)
  order = [
    i for k in range(40) for i in 4 * k + np.repeat(range(4), [2, 3] * 2)
  ]
  path = tmp_path / 'film.mp4'
  woven = weave(film[np.array(order)[: 2 * 200]], 'tff')
  for frame in woven:
    frame.pts = None
  write(path, woven)
  assert inspection.inspect(str(path)).field_order == 'tff'


def test_real_pictures_are_whole(shared):
  clips = shared / 'clips'
  paths = [
    path
    for folder in ('ucf101/UCF-101', 'natural')
    for path in sorted((clips / folder).rglob('*.*'))
    if path.stat().st_size < 2_000_000
  ]
  assert len(paths) > 10
  for path in paths:
    assert inspection.inspect(str(path)).field_order == '', path


def test_deinterlacing_keeps_count_tags_and_format():
  for pixel_format in ('yuv420p', 'yuv422p10le', 'uyvy422', 'nv12'):
    for n in (1, 2, 7):
      frames = []
      for image in fields(n)[:n]:
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame = frame.reformat(format=pixel_format)
        frame.colorspace, frame.color_range = 1, 2
        frames.append(frame)
      found = list(interlacing.deinterlaced(frames, 'tff'))
      assert len(found) == n
      for frame in found:
        assert (frame.width, frame.height) == SIZE[::-1]
        assert (frame.colorspace, frame.color_range) == (1, 2)
