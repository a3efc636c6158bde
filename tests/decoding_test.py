"""Decoding: order, rate, orientation, and a reason for every bad file."""

import csv
import fractions

import av
import numpy as np
import pytest

from tests import tiny_videos
from vdm.preparation import decoding

BROKEN = {
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


def sequential(path):
  """Returns all frames in decode order, by PyAV alone, RGB."""
  with av.open(str(path)) as container:
    return [
      frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)
    ]


def test_select_takes_the_frame_on_show():
  # 29.97 to 25: of six frames one goes, and frame i is on show at i / 29.97.
  times = np.arange(60) / 29.97
  chosen = decoding.select(times, 25.0)
  by_hand = [
    max(i for i in range(60) if times[i] <= tick / 25 + 1e-3)
    for tick in range(len(chosen))
  ]
  assert chosen.tolist() == by_hand
  assert len(chosen) == int(times[-1] * 25) + 1
  # A slower source repeats frames.
  np.testing.assert_array_equal(
    decoding.select(np.arange(3) / 10, 20.0), [0, 0, 1, 1, 2]
  )


def test_equal_rate_keeps_every_frame_of_rounded_timestamps():
  times = np.round(np.arange(500) / 30, 3)  # As Matroska stores them.
  np.testing.assert_array_equal(
    decoding.select(times - times[0], 30.0)[:10], np.arange(10)
  )


def test_variable_rate_comes_out_at_one_rate(tmp_path):
  ticks = [0, 40, 80, 200, 240, 400]
  path = tmp_path / 'vfr.mkv'
  tiny_videos.write_video(path, tiny_videos.grey_steps(6), ticks=ticks)
  frames = decoding.decode(str(path), frame_rate=25.0, resolution=32)
  # On show at 0, 40, 80, ...: frame 2 lasts three ticks, frame 4 four.
  assert tiny_videos.read_levels(frames) == [0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 5]


def test_timestamps_are_trusted_or_not():
  step = fractions.Fraction(1, 25)
  backwards = [0 * step, 2 * step, 1 * step, 3 * step]
  hole = [0 * step, 1 * step, 10_000 * step, 10_001 * step]
  missing = [0 * step, None, 2 * step, 3 * step]
  for stamps in (backwards, hole, missing):
    assert decoding._trusted_times(stamps) is None
  good = [3 * step, 5 * step, 6 * step]
  np.testing.assert_allclose(decoding._trusted_times(good), [0, 0.08, 0.12])


def test_crop_is_centred_and_nothing_is_squashed(tmp_path):
  frames = np.zeros((3, 64, 128, 3), np.uint8)
  frames[:, :, 32:96] = 200  # The centred square.
  frames[:, 16:48, 48:80] = 50  # Its middle half.
  path = tmp_path / 'wide.mp4'
  tiny_videos.write_video(path, frames, codec='libx264', options={'crf': '4'})
  image = next(decoding.decode(str(path), frame_rate=25.0, resolution=32))
  expected = np.full((32, 32), 200.0)
  expected[8:24, 8:24] = 50
  inner = np.abs(image.mean(-1) - expected)
  assert np.mean(inner) < 8  # Lossy coding; edges blur.
  assert image.shape == (32, 32, 3)


def test_area_averaging():
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  frame = av.VideoFrame.from_ndarray(image, format='rgb24')
  means = image.reshape(4, 2, 4, 2, 3).mean((1, 3))
  assert np.abs(decoding.fit(frame, 4) - means).max() <= 0.5 + 1e-6


def test_pixel_aspect_is_applied(tmp_path):
  # 2:1 pixels: 64 x 64 stored is shown 128 x 64, its centre is 32 columns.
  frames = np.zeros((3, 64, 64, 3), np.uint8)
  frames[:, :, 16:48] = 200
  path = tmp_path / 'anamorphic.mp4'
  tiny_videos.write_video(path, frames, pixel_aspect=fractions.Fraction(2, 1))
  source = decoding.inspect(str(path))
  assert (source.height, source.width) == (64, 128)
  image = next(decoding.decode(str(path), frame_rate=25.0, resolution=32))
  assert image.mean() > 180


def test_quarter_turns_are_anticlockwise(monkeypatch):
  image = np.zeros((8, 8, 3), np.uint8)
  image[0, 7] = 255  # Top right.
  frame = av.VideoFrame.from_ndarray(image, format='rgb24')
  monkeypatch.setattr(decoding, '_quarter_turns', lambda frame: 1)
  turned = decoding.fit(frame, 8)
  assert turned[0, 0, 0] == 255  # Top left.


def test_truncated_file_is_named(tmp_path):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (40, 64, 64, 3), np.uint8)
  path = tmp_path / 'whole.avi'
  tiny_videos.write_video(path, frames)
  data = path.read_bytes()
  half = tmp_path / 'half.avi'
  half.write_bytes(data[: len(data) // 2])
  with pytest.raises(decoding.VideoError) as caught:
    decoding.inspect(str(half))
  assert caught.value.reason in ('truncated', 'undecodable')


def test_flipped_bytes_are_noticed(tmp_path):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (40, 64, 64, 3), np.uint8)
  path = tmp_path / 'flipped.avi'
  tiny_videos.write_video(path, frames)
  data = bytearray(path.read_bytes())
  for place in range(len(data) // 3, len(data) // 3 + 4000, 40):
    data[place] ^= 0xFF
  path.write_bytes(data)
  with pytest.raises(decoding.VideoError) as caught:
    decoding.inspect(str(path))
  assert caught.value.reason == 'undecodable'


def test_nothing_is_enlarged(tmp_path):
  path = tmp_path / 'small.mp4'
  tiny_videos.write_video(path, tiny_videos.grey_steps(3, 48, 64))
  frames = decoding.decode(str(path), frame_rate=25.0, resolution=64)
  with pytest.raises(
    decoding.VideoError, match='64x48 px is smaller'
  ) as caught:
    next(frames)
  assert caught.value.reason == 'too_small'


def test_scrambled_timestamps_come_out_in_decode_order(shared):
  name = 'ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi'
  path = shared / 'clips/ucf101/UCF-101' / name
  expected = sequential(path)
  frames = list(decoding.decode(str(path), frame_rate=25.0, resolution=240))
  assert len(frames) == len(expected) == 164
  for frame, image in zip(frames, expected):
    np.testing.assert_array_equal(frame, image[:, 40:280])


def test_rotated_phone_clip_stands_upright(shared):
  folder = shared / 'clips/natural'
  path = folder / 'decord_rot90.mov'
  source = decoding.inspect(str(path))
  stored = sequential(path)[0]
  frame = next(decoding.decode(str(path), frame_rate=30.0, resolution=320))
  assert (source.height, source.width) == stored.shape[1::-1]
  side = min(stored.shape[:2])
  top, left = ((size - side) // 2 for size in stored.shape[:2])
  square = stored[top : top + side, left : left + side]
  # The matrix says -90: clockwise. A person saw this one upright.
  np.testing.assert_array_equal(frame, np.rot90(square, -1))


def test_every_broken_clip_has_its_reason(shared):
  for name, reason in BROKEN.items():
    path = str(shared / 'clips/broken' / name)
    with pytest.raises(decoding.VideoError) as caught:
      next(decoding.decode(path, frame_rate=25.0, resolution=64))
    assert caught.value.reason == reason, name


def test_real_files_decode_whole(shared):
  with open(shared / 'clips/probe.csv') as file:
    rows = [row for row in csv.DictReader(file) if 'ucf101/' in row['path']]
  assert len(rows) == 4
  for row in rows:
    source = decoding.inspect(str(shared / 'clips' / row['path']))
    assert len(source.times) == int(row['frames_decoded'])
    assert source.sha256 == row['sha256']
