"""Decoding: order, rate, and no damage that goes unnoticed."""

import av
import numpy as np
import pytest

from tests import tiny_videos
from vdm.preparation import decoding
from vdm.preparation import inspection


def sequential(path):
  """Returns all frames in decode order, by PyAV alone, RGB."""
  with av.open(str(path)) as container:
    return [
      frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)
    ]


def test_resampling_takes_the_frame_on_display():
  # 29.97 to 25: of six frames one goes, and frame i is on show at i / 29.97.
  times = np.arange(60) / 29.97
  chosen = decoding.resample(times, 25.0)
  by_hand = [
    max(i for i in range(60) if times[i] <= tick / 25 + 1e-3)
    for tick in range(len(chosen))
  ]
  assert chosen.tolist() == by_hand
  assert len(chosen) == int(times[-1] * 25) + 1
  # A slower source repeats frames.
  np.testing.assert_array_equal(
    decoding.resample(np.arange(3) / 10, 20.0), [0, 0, 1, 1, 2]
  )


def test_equal_rate_keeps_every_frame_of_rounded_timestamps():
  times = np.round(np.arange(500) / 30, 3)  # As Matroska stores them.
  np.testing.assert_array_equal(
    decoding.resample(times - times[0], 30.0)[:10], np.arange(10)
  )


def test_variable_rate_comes_out_at_one_rate(tmp_path):
  ticks = [0, 40, 80, 200, 240, 400]
  path = tmp_path / 'vfr.mkv'
  tiny_videos.write_video(path, tiny_videos.grey_steps(6), ticks=ticks)
  frames = tiny_videos.decode(str(path), frame_rate=25.0, resolution=32)
  # On show at 0, 40, 80, ...: frame 2 lasts three ticks, frame 4 four.
  assert tiny_videos.read_levels(frames) == [0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 5]


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
    inspection.inspect(str(path))
  assert caught.value.reason == 'undecodable'


def test_scrambled_timestamps_come_out_in_decode_order(shared):
  name = 'ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi'
  path = shared / 'clips/ucf101/UCF-101' / name
  expected = sequential(path)
  frames = list(tiny_videos.decode(str(path), frame_rate=25.0, resolution=240))
  assert len(frames) == len(expected) == 164
  for frame, image in zip(frames, expected):
    np.testing.assert_array_equal(frame, image[:, 40:280])
