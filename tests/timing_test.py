"""Timing: pauses end shots, and only timestamps that can be right decide."""

import fractions
import struct

import numpy as np
from prepare_file_test import prepare
from prepare_file_test import tiles
import pytest
from screening_test import pan

from tests import tiny_videos
from vdm.preparation import clip_files
from vdm.preparation import decoding
from vdm.preparation import inspection
from vdm.preparation import timing

CODECS = {'mp4': 'libx264', 'mkv': 'libx264', 'webm': 'libvpx', 'avi': 'mpeg4'}


def write_paused(path, pause, n=36, rate=30):
  """Two parts of n frames of one steady pan, with nothing in between."""
  ticks = np.round(np.arange(2 * n) * 1000 / rate).astype(int)
  ticks[n:] += round(pause * 1000)
  codec = CODECS[path.suffix[1:]]
  options = {'threads': '1'} | ({'crf': '18'} if codec == 'libx264' else {})
  tiny_videos.write_video(
    path, pan(2 * n), rate=rate, ticks=ticks, codec=codec, options=options
  )


@pytest.mark.parametrize('pause', [1, 4, 7, 900])
@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'webm'])
def test_a_pause_ends_the_shot_and_motion_keeps_its_speed(
  tmp_path, suffix, pause
):
  path = tmp_path / f'paused.{suffix}'
  write_paused(path, pause)
  result, _ = prepare(path, tmp_path, frame_rate=30.0)
  assert tiles(result)
  assert [(s.start, s.stop, s.reason) for s in result.shots] == [
    (0, 36, ''),
    (36, 72, ''),
  ]
  for shot in result.shots:
    assert shot.repeats == [1] * 36
  assert result.facts['timing'] == 'timestamps'
  assert result.facts['rate_from'] == 'timestamps'
  assert result.facts['pauses'] == [36]
  assert result.facts['frame_rate'] == pytest.approx(30, rel=0.02)
  # Motion is the same as without the pause.
  whole = tmp_path / f'whole.{suffix}'
  write_paused(whole, 0)
  steady, _ = prepare(whole, tmp_path, frame_rate=30.0)
  assert len(steady.shots) == 1
  expected = steady.shots[0].measures['motion']
  for shot in result.shots:
    assert shot.measures['motion'] == pytest.approx(expected, rel=0.1)
  assert steady.facts['pauses'] == []


def test_clips_of_a_folder_do_not_go_over_a_pause(tmp_path):
  path = tmp_path / 'paused.mp4'
  write_paused(path, 4)
  read = dict(resolution=32, num=8, frame_rate=30.0)
  clips, _ = clip_files.read_clips(tmp_path, frames=36, **read)
  steps = np.abs(np.diff(clips.astype(float), axis=1)).mean((2, 3, 4))
  assert steps.min() > 0.5  # None of them stands still.
  with pytest.raises(ValueError, match='no clip'):
    clip_files.read_clips(tmp_path, frames=37, **read)


def test_a_few_repeated_frames_are_no_pause():
  step = fractions.Fraction(1, 30)
  stamps = [step * i for i in range(60)]
  held = stamps + [stamps[-1] + step * (16 + i) for i in range(60)]
  found = timing.decide(held, fractions.Fraction(30), 0.0, is_timed=True)
  assert found.pauses == ()
  # At one frame a second, a second is no pause.
  slow = [fractions.Fraction(i) for i in range(20)]
  found = timing.decide(slow, fractions.Fraction(1), 0.0, is_timed=True)
  assert found.pauses == () and found.timing == 'timestamps'
  held = stamps + [stamps[-1] + step * (20 + i) for i in range(60)]
  found = timing.decide(held, fractions.Fraction(24), 0.0, is_timed=True)
  assert found.pauses == (60,)
  assert found.frame_rate == pytest.approx(30)


def test_where_timestamps_are_scrambled_order_decides():
  step = fractions.Fraction(1, 25)
  stamps = [step * i for i in (0, 2, 1, 4, 3, 200, 202, 201)]
  found = timing.decide(stamps, fractions.Fraction(25), 0.0, is_timed=True)
  assert (found.timing, found.rate_from) == ('order', 'header')
  np.testing.assert_allclose(found.times, np.arange(8) / 25)
  assert found.pauses == ()


def test_joined_recordings_are_two_shots(tmp_path):
  parts = []
  for number, n in enumerate((30, 45)):
    path = tmp_path / f'{number}.ts'
    frames = pan(n)  # The same picture: no cut is seen.
    tiny_videos.write_video(path, frames[::-1] if number else frames)
    parts.append(path.read_bytes())
  path = tmp_path / 'joined.ts'
  path.write_bytes(b''.join(parts))
  result, _ = prepare(path, tmp_path, frame_rate=25.0)
  assert [(s.start, s.stop, s.n) for s in result.shots] == [
    (0, 30, 30),
    (30, 75, 45),
  ]
  assert result.facts['timing'] == 'timestamps'


def write_fast_avi(path, rate):
  """A whole AVI whose header claims `rate` frames a second."""
  tiny_videos.write_video(path, pan(30))
  data = bytearray(path.read_bytes())
  place = data.find(b'strh') + 28
  data[place : place + 8] = struct.pack('<II', 1, rate)
  path.write_bytes(data)


def test_an_absurd_rate_is_not_believed(tmp_path):
  path = tmp_path / 'fast.avi'
  write_fast_avi(path, 10**9)
  with pytest.raises(decoding.VideoError, match='1000000000') as caught:
    inspection.inspect(str(path))
  assert caught.value.reason == 'no_frame_rate'
  result, _ = prepare(path, tmp_path, assumed_rate=0.0)
  assert result.reason == 'no_frame_rate'
  result, _ = prepare(path, tmp_path, assumed_rate=12.5, frame_rate=12.5)
  assert result.facts['rate_from'] == 'assumed'
  assert (result.facts['timing'], result.shots[0].n) == ('order', 30)


def test_an_average_that_counts_empty_ticks_is_not_believed(tmp_path):
  # AVI has a tick for every chunk: here 1000 a second, most of them empty.
  path = tmp_path / 'ticks.avi'
  write_paused(path, 4)
  result, _ = prepare(path, tmp_path, frame_rate=30.0)
  assert [(s.start, s.stop, s.n) for s in result.shots] == [
    (0, 36, 36),
    (36, 72, 36),
  ]
  assert result.facts['frame_rate'] == pytest.approx(30, rel=0.02)
  assert not result.facts['doubt']
