"""Colours come out as players show them, or the file is left out."""

import types

import av
import numpy as np
from prepare_file_test import prepare
import pytest

from tests import tiny_videos
from vdm.preparation import clip_files
from vdm.preparation import color
from vdm.preparation import decoding
from vdm.preparation import geometry

RATIOS = {'bt709': (0.2126, 0.0722), 'bt601': (0.299, 0.114)}
SPACES = {'bt709': 1, 'bt601': 6}
COLORS = [(200, 40, 40), (30, 180, 60), (40, 60, 200), (128, 128, 128)]


def to_yuv(rgb, matrix):
  """Limited range, from the definition of the matrix."""
  red, blue = RATIOS[matrix]
  r, g, b = (value / 255 for value in rgb)
  y = red * r + (1 - red - blue) * g + blue * b
  u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
  return [round(16 + 219 * y), round(128 + 224 * u), round(128 + 224 * v)]


def plain(yuv, width, height, pixel_format='yuv420p'):
  frame = av.VideoFrame(width, height, pixel_format)
  for plane, value in zip(frame.planes, yuv):
    plane.update(np.full(plane.buffer_size, value, np.uint8).tobytes())
  return frame


def write(path, yuv, width, height, *, space=None, curve=None, n=20):
  """A video of one colour, tagged or not."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
    stream.options = {'crf': '1', 'threads': '1', 'preset': 'ultrafast'}
    if space:
      stream.codec_context.colorspace = space
    if curve:
      stream.codec_context.color_trc = curve
    for _ in range(n):
      frame = plain(yuv, width, height)
      if space:
        frame.colorspace = space
      if curve:
        frame.color_trc = curve
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.mark.parametrize(
  'size, matrix',
  [
    ((320, 240), 'bt601'),
    ((720, 576), 'bt601'),
    ((1280, 720), 'bt709'),
    ((1920, 800), 'bt709'),
    ((720, 1280), 'bt709'),
  ],
)
def test_untagged_frames_are_read_by_their_size(size, matrix):
  for rgb in COLORS:
    frame = plain(to_yuv(rgb, matrix), *size)
    assert color.matrix(frame) == (matrix, 'assumed')
    assert np.abs(geometry.to_rgb(frame)[5, 5] - np.array(rgb)).max() <= 3


@pytest.mark.parametrize('size', [(320, 240), (1280, 720)])
@pytest.mark.parametrize('matrix', SPACES)
def test_tags_are_believed(size, matrix):
  for rgb in COLORS:
    frame = plain(to_yuv(rgb, matrix), *size)
    frame.colorspace = SPACES[matrix]
    assert color.matrix(frame) == (matrix, 'file')
    assert np.abs(geometry.to_rgb(frame)[5, 5] - np.array(rgb)).max() <= 3


def test_pictures_of_rgb_have_no_matrix():
  image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
  frame = av.VideoFrame.from_ndarray(image, format='rgb24')
  assert color.matrix(frame) == ('rgb', 'file')
  np.testing.assert_array_equal(geometry.to_rgb(frame), image)


def test_the_manifest_says_what_was_assumed(tmp_path):
  options = dict(min_frames=4, frame_rate=25.0)
  for name, size, space, expected in (
    ('hd.mp4', (1280, 720), None, ('bt709', 'assumed')),
    ('sd.mp4', (320, 240), None, ('bt601', 'assumed')),
    ('tagged.mp4', (1280, 720), 6, ('bt601', 'file')),
  ):
    path = tmp_path / name
    write(path, to_yuv(COLORS[0], expected[0]), *size, space=space, n=4)
    facts = prepare(path, tmp_path, **options)[0].facts
    assert (facts['matrix'], facts['matrix_from']) == expected
    image = next(tiny_videos.decode(str(path), frame_rate=25.0, resolution=32))
    assert np.abs(image[16, 16] - np.array(COLORS[0])).max() <= 4


@pytest.mark.parametrize('curve, name', [(18, 'HLG'), (16, 'PQ')])
def test_high_dynamic_range_is_left_out(tmp_path, curve, name):
  path = tmp_path / 'hdr.mp4'
  write(path, (120, 110, 140), 320, 240, space=9, curve=curve)
  result, _ = prepare(path, tmp_path)
  assert result.reason == 'high_dynamic_range' and name in result.message
  with pytest.raises(ValueError, match='no clip'):
    clip_files.read_clips(tmp_path, frames=4, resolution=32, num=1)
  # BT.2020 alone is no reason.
  write(path, (120, 110, 140), 320, 240, space=9, curve=14)
  result, _ = prepare(path, tmp_path)
  assert not result.reason and result.facts['matrix'] == 'bt2020'


def test_dolby_vision_without_a_tag_is_left_out():
  frame = plain((120, 110, 140), 320, 240, 'yuv420p10le')
  color.check(frame)
  dolby = types.SimpleNamespace(
    color_trc=2, format=frame.format, side_data={'DOVI_METADATA': b'x'}
  )
  with pytest.raises(decoding.VideoError, match='Dolby Vision') as caught:
    color.check(dolby)
  assert caught.value.reason == 'high_dynamic_range'
