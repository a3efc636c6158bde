"""One file: what of it stays, staged whole, found again after a kill."""

import csv
import errno
import os
import pathlib
import re
import subprocess
import sys

from conftest import ROOT
import numpy as np
import pytest
from screening_test import pan

from tests import tiny_videos
from vdm.config import schema
from vdm.data import coding
from vdm.preparation import inspection
from vdm.preparation import prepare_file
from vdm.preparation import reasons
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import video_dataset
from vdm.preparation import workers


def make_data(root, source, **changes):
  data = schema.default().data
  data.update(name='video_folder', resolution=32, min_frames=16)
  data.update(root=str(root), source=str(source))
  data.screening.rules = schema.SCREENING
  data.update(changes)
  return data


def prepare(path, tmp_path, **changes):
  """Prepares one file in this process; returns its result and the staging."""
  data = make_data(tmp_path, path.parent, **changes)
  (file,) = (
    f for f in sources.list_folder(str(path.parent)) if f.name == path.name
  )
  staging = staging_area.Staging(str(tmp_path / 'staging'))
  own = video_dataset.file_settings(data)
  task = prepare_file.Task(file, own, data.limits.pixels, staging)
  assert prepare_file.prepare(task, lambda: None) == path.name
  return staging.read(path.name, task.stamp()), staging


def tiles(result):
  """Whether the pieces hold every frame exactly once."""
  edges = [(shot.start, shot.stop) for shot in result.shots]
  whole = [0, *(b for _, b in edges[:-1])] == [a for a, _ in edges]
  return whole and edges[-1][1] == result.facts['frames']


@pytest.fixture(scope='module')
def edited(tmp_path_factory):
  """Two shots, black, and a shot that is too short."""
  path = tmp_path_factory.mktemp('edited') / 'edited.mp4'
  black = np.zeros((20, 72, 128, 3), np.uint8)
  parts = [pan(30, seed=1), pan(25, seed=2), black, pan(10, seed=3)]
  tiny_videos.write_video(path, np.concatenate(parts))
  return path


def test_pieces_of_a_file(edited, tmp_path):
  result, staging = prepare(edited, tmp_path)
  assert tiles(result)
  assert [(s.start, s.stop, s.reason) for s in result.shots] == [
    (0, 30, ''),
    (30, 55, ''),
    (55, 75, 'blank'),
    (75, 85, 'too_short'),
  ]
  assert result.facts['rate_from'] == 'timestamps'
  frames = list(tiny_videos.decode(str(edited), frame_rate=25.0, resolution=32))
  encoded = [coding.encode_frame(frame, 'webp') for frame in frames]
  for shot in result.shots[:2]:
    stored = list(staging.frames(result.name, shot))
    assert stored == encoded[shot.start : shot.stop]
    part = list(staging.frames(result.name, shot, 3, 7))
    assert part == encoded[shot.start + 3 : shot.start + 7]
  for shot in result.shots:
    assert coding.decode_frame(staging.preview(result.name, shot)).shape == (
      72,
      128,
      3,
    )


def test_the_second_decoding_gives_the_same(edited, tmp_path, monkeypatch):
  one, first = prepare(edited, tmp_path / 'a')
  monkeypatch.setattr(prepare_file, '_CACHE_BYTES', 100_000)
  two, second = prepare(edited, tmp_path / 'b')
  assert one == two
  for name in ('.frames', '.json'):
    data = [pathlib.Path(s.path(one.name, name)) for s in (first, second)]
    assert data[0].read_bytes() == data[1].read_bytes()


def test_rates_repeat_and_drop_frames(edited, tmp_path):
  result, staging = prepare(edited, tmp_path, frame_rate=50.0)
  shot = result.shots[0]
  assert (shot.n, len(shot.places)) == (59, 30)
  stored = list(staging.frames(result.name, shot))
  assert len(stored) == 59 and stored[0] == stored[1] != stored[2]
  assert shot.measures['distinct'] == pytest.approx(30 / 59, abs=1e-3)
  # 29 steps of 4 frames, and the last frame: just above the least share, 1/4.
  result, _ = prepare(edited, tmp_path, frame_rate=100.0)
  assert result.shots[0].reason == ''
  assert result.shots[0].measures['distinct'] == pytest.approx(
    30 / 117, abs=1e-3
  )
  result, _ = prepare(edited, tmp_path, frame_rate=200.0)
  assert result.shots[0].reason == 'low_frame_rate'
  assert result.shots[0].measures['distinct'] == pytest.approx(
    30 / 233, abs=1e-3
  )


def test_too_small_and_too_short_come_before_all_else(edited, tmp_path):
  result, _ = prepare(edited, tmp_path, resolution=80)
  assert [s.reason for s in result.shots] == ['too_small'] and tiles(result)
  result, staging = prepare(edited, tmp_path, resolution=80, upscale=True)
  frame = coding.decode_frame(
    next(staging.frames(result.name, result.shots[0]))
  )
  assert frame.shape == (80, 80, 3)
  result, _ = prepare(edited, tmp_path, min_frames=100)
  assert [s.reason for s in result.shots] == ['too_short'] and tiles(result)


def test_bars_are_cut_off(tmp_path):
  frames = pan(40, size=(144, 128))
  frames[:, :36] = frames[:, 108:] = 0
  path = tmp_path / 'bars.mp4'
  tiny_videos.write_video(path, frames)
  result, staging = prepare(path, tmp_path)
  top, bottom, left, right = result.facts['box']
  assert (left, right) == (0, 128)
  assert abs(top - 38) <= 2 and abs(bottom - 106) <= 2
  frame = coding.decode_frame(
    next(staging.frames(result.name, result.shots[0]))
  )
  assert frame[0].mean() > 60 and frame[-1].mean() > 60
  # What is left within the bars must be large enough, too.
  result, _ = prepare(path, tmp_path, resolution=80)
  assert result.shots[0].reason == 'too_small'


def test_a_raw_stream_gets_the_assumed_rate(tmp_path):
  path = tmp_path / 'raw.mp4'  # Whatever its name says.
  tiny_videos.write_video(path, pan(30), rate=50, container_format='m4v')
  result, _ = prepare(path, tmp_path, assumed_rate=12.5, frame_rate=12.5)
  assert result.facts['rate_from'] == 'assumed'
  assert result.facts['frame_rate'] == 12.5
  assert result.shots[0].n == 30


def test_failures_have_reasons(tmp_path, monkeypatch):
  path = tmp_path / 'x.mp4'
  path.write_bytes(b'')
  assert prepare(path, tmp_path)[0].reason == 'empty'
  tiny_videos.write_video(path, pan(20))
  data = make_data(tmp_path, tmp_path)
  data.limits.pixels = 72 * 128 - 1
  result, _ = prepare(path, tmp_path, limits=data.limits)
  assert result.reason == 'too_large'

  def broken(*unused, **kwargs):
    raise RuntimeError('a library had\na bad day')

  monkeypatch.setattr(inspection, 'inspect', broken)
  result, _ = prepare(path, tmp_path)
  assert result.reason == 'failed'
  assert result.message == 'RuntimeError: a library had'


def test_a_full_disk_is_not_the_file_s_fault(edited, tmp_path, monkeypatch):
  def full(*unused):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(staging_area.Staging, 'write', full)
  with pytest.raises(OSError, match='No space'):
    prepare(edited, tmp_path)


def test_another_version_of_a_file_is_prepared_again(edited, tmp_path):
  result, staging = prepare(edited, tmp_path)
  status = os.stat(edited)
  stamp = [status.st_size, status.st_mtime_ns]
  assert staging.read(result.name, stamp) == result
  assert staging.read(result.name, [stamp[0], stamp[1] + 1]) is None
  assert staging.read('other.mp4', stamp) is None
  path = pathlib.Path(staging.path(result.name, '.json'))
  path.write_bytes(path.read_bytes()[:-9])  # Torn.
  assert staging.read(result.name, stamp) is None


def build_in_process(root, source, *, stop_after=''):
  """Builds in another process, which may kill itself; returns its code."""
  code = f"""
import os, sys
from absl import logging
from vdm.common import progress
from vdm.preparation import datasets
import prepare_file_test as own
logging.set_verbosity('info')
progress.LOG_SECONDS = 0.0
if __name__ == '__main__':
  data = own.make_data({str(root)!r}, {str(source)!r}, resolution=32)
  data.limits.workers = 1
  from vdm.preparation import workers
  run = workers.run
  def killed(*args, **kwargs):
    for done, outcome in enumerate(run(*args, **kwargs), 1):
      yield outcome
      if str(done) == {stop_after!r}:
        os.kill(os.getpid(), 9)
  workers.run = killed
  datasets.build(data)
"""
  return subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}'},
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_killed_build_continues(tmp_path):
  from vdm.data import builders
  from vdm.preparation import datasets

  source = tmp_path / 'videos'
  source.mkdir()
  for number in range(4):
    tiny_videos.write_video(source / f'{number}.mp4', pan(20, seed=number))
  (source / 'bad.mp4').write_bytes(b'nothing')
  killed = build_in_process(tmp_path / 'a', source, stop_after='2')
  assert killed.returncode == -9, killed.stderr
  assert not list((tmp_path / 'a').rglob(builders.SKIPPED_FILE))
  again = build_in_process(tmp_path / 'a', source)
  assert again.returncode == 0, again.stderr
  # Two were done; the process at work may have finished a third by itself.
  found = re.search(r'(\d) of 5 videos were prepared before', again.stderr)
  assert int(found[1]) in (2, 3)
  assert f'of {5 - int(found[1])} files' in again.stderr
  whole = build_in_process(tmp_path / 'b', source)
  assert whole.returncode == 0, whole.stderr
  infos = [
    builders.read_info(datasets.dataset_dir(make_data(tmp_path / name, source)))
    for name in 'ab'
  ]
  assert infos[0] == infos[1]
  assert not list(tmp_path.rglob('*.staging'))


@pytest.mark.parametrize('reason', ['timeout', 'failed'])
def test_what_was_beyond_the_limits_is_tried_again(edited, tmp_path, reason):
  data = make_data(tmp_path, edited.parent)
  staging = video_dataset.staging_of(data, 'x')

  def run(function, tasks):
    for number in range(len(tasks)):
      yield number, workers.Failure(reason, 'it took more than 1 s')

  build = video_dataset.Build(data, staging, run)
  files = sources.list_folder(str(edited.parent))
  results = build.prepare(files)
  assert [r.reason for r in results] == [reason]
  assert reasons.skipped(results)[0].reason == reason
  build = video_dataset.Build(data, staging, workers_of_this_process)
  assert [r.reason for r in build.prepare(files)] == ['']


def workers_of_this_process(function, tasks):
  for number, task in enumerate(tasks):
    yield number, function(task, lambda: None)


def test_real_clips_come_out_as_they_are(shared, tmp_path):
  with open(shared / 'clips/probe.csv') as file:
    rows = {row['path']: row for row in csv.DictReader(file)}

  def of(name, **changes):
    path = shared / 'clips' / name
    result, _ = prepare(path, tmp_path, **changes)
    assert tiles(result)
    assert result.facts['frames'] == int(rows[name]['frames_decoded'])
    assert result.facts['sha256'] == rows[name]['sha256']
    return result

  variable = of('natural/tc_var_fps_synthetic.mp4')
  # At one rate: as many frames as 25 a second make of its duration.
  assert variable.facts['rate_from'] == 'timestamps'
  seconds = float(rows['natural/tc_var_fps_synthetic.mp4']['duration_s'])
  assert abs(variable.shots[0].n - 25 * seconds) <= 2
  scrambled = of('ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi')
  assert scrambled.facts['rate_from'] == 'header'
  assert scrambled.shots[0].n == 164
  raw = of('raw_mpeg4/v_HorseRiding_g01_c03.mp4')
  assert (raw.facts['rate_from'], raw.shots[0].n) == ('assumed', 98)
  carphone = of('natural/skv_carphone_pristine.mp4')
  assert carphone.facts['width'] == 193  # 176 columns of 128:117.
  turned, staging = prepare(shared / 'clips/natural/decord_rot90.mov', tmp_path)
  preview = coding.decode_frame(staging.preview(turned.name, turned.shots[0]))
  assert preview.shape[0] > preview.shape[1]
  assert turned.shots[0].reason == 'too_short'
