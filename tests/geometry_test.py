"""Frames become squares: centred, upright, nothing squashed."""

import fractions

import av
from decoding_test import sequential
import numpy as np

from tests import tiny_videos
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
  assert np.abs(geometry.crop_square(frame, 4) - means).max() <= 0.5 + 1e-6


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
  turned = geometry.crop_square(frame, 8)
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
