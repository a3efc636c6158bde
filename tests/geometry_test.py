"""Frames become squares: centred, upright, nothing squashed."""

import fractions
import struct
import types

import av
from decoding_test import sequential
import numpy as np
import pytest

from tests import tiny_videos
from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import inspection


def test_crop_is_centred_and_nothing_is_squashed(tmp_path):
  frames = np.zeros((3, 64, 128, 3), np.uint8)
  frames[:, :, 32:96] = 200  # The centred square.
  frames[:, 16:48, 48:80] = 50  # Its middle half.
  path = tmp_path / 'wide.mp4'
  tiny_videos.write_video(path, frames, codec='libx264', options={'crf': '4'})
  image = next(tiny_videos.decode(str(path), frame_rate=25.0, resolution=32))
  expected = np.full((32, 32), 200.0)
  expected[8:24, 8:24] = 50
  inner = np.abs(image.mean(-1) - expected)
  assert np.mean(inner) < 8  # Lossy coding; edges blur.
  assert image.shape == (32, 32, 3)


def test_area_averaging():
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  frame = av.VideoFrame.from_ndarray(image, format='rgb24')
  means = image.reshape(4, 2, 4, 2, 3).mean((1, 3))
  assert np.abs(geometry.fit(frame, (4, 4)) - means).max() <= 0.5 + 1e-6


def test_pixel_aspect_is_applied(tmp_path):
  # 2:1 pixels: 64 x 64 stored is shown 128 x 64, its centre is 32 columns.
  frames = np.zeros((3, 64, 64, 3), np.uint8)
  frames[:, :, 16:48] = 200
  path = tmp_path / 'anamorphic.mp4'
  tiny_videos.write_video(path, frames, pixel_aspect=fractions.Fraction(2, 1))
  source = inspection.inspect(str(path))
  assert (source.height, source.width) == (64, 128)
  image = next(tiny_videos.decode(str(path), frame_rate=25.0, resolution=32))
  assert image.mean() > 180


def test_quarter_turns_are_anticlockwise(monkeypatch):
  image = np.zeros((8, 8, 3), np.uint8)
  image[0, 7] = 255  # Top right.
  frame = av.VideoFrame.from_ndarray(image, format='rgb24')
  monkeypatch.setattr(geometry, 'quarter_turns', lambda frame: 1)
  turned = geometry.fit(frame, (8, 8))
  assert turned[0, 0, 0] == 255  # Top left.


def test_rotated_phone_clip_stands_upright(shared):
  folder = shared / 'clips/natural'
  path = folder / 'decord_rot90.mov'
  source = inspection.inspect(str(path))
  stored = sequential(path)[0]
  frame = next(tiny_videos.decode(str(path), frame_rate=30.0, resolution=320))
  assert (source.height, source.width) == stored.shape[1::-1]
  side = min(stored.shape[:2])
  top, left = ((size - side) // 2 for size in stored.shape[:2])
  square = stored[top : top + side, left : left + side]
  # The matrix says -90: clockwise. A person saw this one upright.
  np.testing.assert_array_equal(frame, np.rot90(square, -1))


def display_matrix(a, b, c, d):
  """As in QuickTime: a, b, u; c, d, v; x, y, w, of which u, v, w are finer."""
  one = 1 << 16
  values = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
  return struct.pack('>9i', *values)


# Where the corners of a picture go: a stored point (x, y), y downwards, to
# (a x + c y, b x + d y). Top left is 0, top right 1, bottom left 2, right 3.
ORIENTATIONS = {
  (1, 0, 0, 1): [[0, 1], [2, 3]],
  (0, 1, -1, 0): [[2, 0], [3, 1]],  # Clockwise.
  (-1, 0, 0, -1): [[3, 2], [1, 0]],
  (0, -1, 1, 0): [[1, 3], [0, 2]],
  (-1, 0, 0, 1): [[1, 0], [3, 2]],  # Left to right.
  (1, 0, 0, -1): [[2, 3], [0, 1]],  # Upside down.
  (0, 1, 1, 0): [[0, 2], [1, 3]],  # Transposed.
  (0, -1, -1, 0): [[3, 1], [2, 0]],  # About the other diagonal.
}


@pytest.mark.parametrize('suffix', ['mp4', 'mov'])
@pytest.mark.parametrize('matrix', ORIENTATIONS)
def test_the_whole_display_matrix_is_applied(tmp_path, matrix, suffix):
  levels = np.array([[20, 90], [160, 230]], np.uint8)
  picture = np.kron(levels, np.ones((32, 48), np.uint8))  # 64 x 96.
  frames = np.repeat(picture[None, :, :, None], 3, -1).repeat(4, 0)
  path = tmp_path / f'turned.{suffix}'
  tiny_videos.write_video(path, frames)
  data = bytearray(path.read_bytes())
  place = data.find(b'tkhd') + 4 + 40  # After version, times, layer, volume.
  assert data[place : place + 36] == display_matrix(1, 0, 0, 1)
  data[place : place + 36] = display_matrix(*matrix)
  path.write_bytes(data)
  expected = levels.ravel()[np.array(ORIENTATIONS[matrix])]
  info = inspection.inspect(str(path))
  turned = not matrix[0]
  assert (info.height, info.width) == ((96, 64) if turned else (64, 96))
  assert info.mirrored == (matrix[0] * matrix[3] < matrix[1] * matrix[2])
  with decoding.open_video(str(path)) as (container, stream):
    frame = next(decoding.decode(container, stream))
    parts = [geometry.fit(frame, x) for x in ((64, 64), (32, 64), (64, 32))]
    whole = geometry.upright(frame)
  assert [x.shape[:2] for x in parts] == [(64, 64), (32, 64), (64, 32)]
  for image in (*parts, whole):
    height, width = image.shape[:2]
    corners = image[[8, height - 8]][:, [8, width - 8], 0]
    np.testing.assert_allclose(corners, expected, atol=6)
  assert whole.shape[:2] == (info.height, info.width)


def test_a_matrix_that_scales_or_leans_is_the_nearest_of_the_eight():
  for values, expected in (
    ((2, 0, 0, 0.5), (0, False)),
    ((-0.5, 0, 0, 3), (0, True)),
    ((0.2, 0.9, -0.9, 0.2), (-1, False)),
    ((0, 0, 0, 0), (0, False)),
  ):
    a, b, c, d = values
    data = np.array([a, b, 0, c, d, 0, 0, 0, 1]) * 65536
    frame = types.SimpleNamespace(
      side_data={'DISPLAYMATRIX': data.astype(np.int32).tobytes()}
    )
    found = geometry.quarter_turns(frame), geometry.is_mirrored(frame)
    assert found == expected
