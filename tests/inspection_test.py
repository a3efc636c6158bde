"""Inspection: which timestamps count, and a reason for every bad file."""

import csv
import fractions

import numpy as np
import pytest

from tests import tiny_videos
from vdm.preparation import decoding
from vdm.preparation import inspection
from vdm.preparation import timing

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


def test_timestamps_are_trusted_or_not():
  step = fractions.Fraction(1, 25)
  backwards = [0 * step, 2 * step, 1 * step, 3 * step]
  hole = [0 * step, 1 * step, 10_000_000 * step, 10_000_001 * step]
  missing = [0 * step, None, 2 * step, 3 * step]
  for stamps in (backwards, hole, missing):
    assert timing.trusted_times(stamps) is None
  good = [3 * step, 5 * step, 6 * step]
  np.testing.assert_allclose(timing.trusted_times(good), [0, 0.08, 0.12])


def test_truncated_file_is_named(tmp_path):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (40, 64, 64, 3), np.uint8)
  path = tmp_path / 'whole.avi'
  tiny_videos.write_video(path, frames)
  data = path.read_bytes()
  half = tmp_path / 'half.avi'
  half.write_bytes(data[: len(data) // 2])
  with pytest.raises(decoding.VideoError) as caught:
    inspection.inspect(str(half))
  assert caught.value.reason in ('truncated', 'undecodable')


def test_nothing_is_enlarged(tmp_path):
  path = tmp_path / 'small.mp4'
  tiny_videos.write_video(path, tiny_videos.grey_steps(3, 48, 64))
  frames = tiny_videos.decode(str(path), frame_rate=25.0, resolution=64)
  with pytest.raises(
    decoding.VideoError, match='64x48 px is smaller'
  ) as caught:
    next(frames)
  assert caught.value.reason == 'too_small'


def test_every_broken_clip_has_its_reason(shared):
  for name, reason in BROKEN.items():
    path = str(shared / 'clips/broken' / name)
    with pytest.raises(decoding.VideoError) as caught:
      next(tiny_videos.decode(path, frame_rate=25.0, resolution=64))
    assert caught.value.reason == reason, name


def test_real_files_decode_whole(shared):
  with open(shared / 'clips/probe.csv') as file:
    rows = [row for row in csv.DictReader(file) if 'ucf101/' in row['path']]
  assert len(rows) == 4
  for row in rows:
    source = inspection.inspect(str(shared / 'clips' / row['path']))
    assert len(source.times) == int(row['frames_decoded'])
    assert source.sha256 == row['sha256']
