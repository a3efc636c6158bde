"""From a folder of real videos to a dataset and a report that can be trusted.

The default test has the essentials on a few files; `-m slow` runs the command
on all of them, broken ones included.
"""

import collections
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import av
from conftest import ROOT
import numpy as np
import pytest

from vdm.data import builders
from vdm.data import coding
from vdm.preparation import data_report
from vdm.preparation import manifest

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
SCRAMBLED = 'ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi'
PAIR = tuple(
  f'natural/traffic_bgs_video_{kind}.avi' for kind in ('msmpeg4v2', 'small')
)
TURNED = 'natural/decord_rot90.mov'
VARIABLE = 'natural/tc_var_fps_synthetic.mp4'
RAW = 'raw_mpeg4/v_HorseRiding_g01_c03.mp4'


def prepare(source, root, *arguments):
  """Runs the command; returns the dataset's directory and what it said."""
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'vdm.prepare',
      'clips',
      '--config',
      'configs/video_folder.py',
      f'--config.data.source={source}',
      f'--config.data.root={root}',
      '--config.data.frame_rate=25',
      *arguments,
    ],
    cwd=ROOT,
    env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='2'),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split(' in ', 1)[1].splitlines()[0], done.stdout


class Outcome:
  """A dataset and its manifest."""

  def __init__(self, directory):
    self.directory = pathlib.Path(directory)
    self.splits = {
      split: builders.open_source(directory, split)
      for split in ('train', 'validation')
    }
    text = (self.directory / manifest.FILE).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    self.dataset = lines[0]
    self.sources = {x['name']: x for x in lines if x['kind'] == 'source'}
    self.shots = collections.defaultdict(list)
    for line in lines:
      if line['kind'] == 'shot':
        self.shots[line['source']].append(line)

  def frames(self, name):
    """All stored frames of a source, in order."""
    found = []
    for source in self.splits.values():
      rows = np.flatnonzero(source.index['group'] == name)
      for row in rows[np.argsort(source.index['id'][rows])]:
        found += source.frames(int(source.index['row'][row]))
    return found


def check_essentials(outcome, shared):
  with open(shared / 'clips/probe.csv') as file:
    probe = {row['path']: row for row in csv.DictReader(file)}
  assert {
    name.removeprefix('broken/'): source['reason']
    for name, source in outcome.sources.items()
    if name.startswith('broken/')
  } == BROKEN
  for name, source in outcome.sources.items():
    shots = outcome.shots[name]
    assert bool(source['reason']) != any(s['stored'] for s in shots), name
    assert bool(source['message']) == bool(source['reason'])
    # Nothing is lost: the pieces hold every decoded frame once.
    if 'frames' in source:
      assert source['frames'] == int(probe[name]['frames_decoded'])
      assert source['sha256'] == probe[name]['sha256']
      ends = [0, *(shot['stop'] for shot in shots)]
      assert [shot['start'] for shot in shots] == ends[:-1]
      assert ends[-1] == source['frames']
    for shot in shots:
      assert bool(shot['reason']) != bool(shot['stored'])
      if not shot['reason']:
        assert shot['frames'] >= 16
  (duplicate,) = outcome.shots[PAIR[1]]
  assert duplicate['reason'] == 'duplicate' and PAIR[0] in duplicate['note']
  assert outcome.sources[PAIR[0]]['reason'] == ''
  # In decode order, whatever its timestamps say.
  with av.open(str(shared / 'clips' / SCRAMBLED)) as container:
    frames = [
      frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)
    ]
  stored = outcome.frames(SCRAMBLED)
  assert len(stored) == len(frames) == 164
  for encoded, frame in zip(stored[::20], frames[::20]):
    fine = frame[:, 40:280].repeat(4, 0).repeat(4, 1)
    means = fine.reshape(64, 15, 64, 15, 3).mean((1, 3))
    assert np.abs(coding.decode_frame(encoded) - means).max() < 1.01
  # At one rate.
  seconds = float(probe[VARIABLE]['duration_s'])
  assert abs(len(outcome.frames(VARIABLE)) - 25 * seconds) <= 2
  assert outcome.sources[RAW]['rate_from'] == 'assumed'
  assert outcome.sources[TURNED]['reason'] == 'too_short'
  # No recording on both sides.
  sides = [set(s.index['group']) for s in outcome.splits.values()]
  assert all(sides) and not sides[0] & sides[1]
  info = outcome.splits['train'].info
  assert outcome.dataset['fingerprint'] == info['fingerprint']
  page = (outcome.directory / data_report.REPORT_FILE).read_text()
  for reason in ('too_small', 'duplicate', 'too_short', 'no_video_stream'):
    assert f'<h3>{reason}</h3>' in page
  for name, source in outcome.sources.items():
    if source['reason']:
      assert name in page
  sheet = (outcome.directory / data_report.SHEET_FILE).read_bytes()
  assert sheet.startswith(b'\x89PNG')


def test_essentials(shared, tmp_path):
  clips = tmp_path / 'clips'
  names = [*PAIR, SCRAMBLED, TURNED, VARIABLE, RAW]
  for name in names + [f'broken/{name}' for name in BROKEN]:
    (clips / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shared / 'clips' / name, clips / name)
  directory, said = prepare(clips, tmp_path / 'data')
  assert 'report: ' in said and 'skipped 11 files' in said
  check_essentials(Outcome(directory), shared)


@pytest.mark.slow
def test_the_whole_folder(shared, tmp_path):
  """Also: one, two and four processes make the same dataset."""
  outcomes = []
  for workers in (2, 1, 4):
    directory, _ = prepare(
      shared / 'clips',
      tmp_path / f'data{workers}',
      f'--config.data.limits.workers={workers}',
    )
    outcomes.append(Outcome(directory))
  assert len({outcome.dataset['fingerprint'] for outcome in outcomes}) == 1
  manifests = [
    (outcome.directory / manifest.FILE).read_bytes() for outcome in outcomes
  ]
  assert manifests[0] == manifests[1] == manifests[2]
  outcome = outcomes[0]
  check_essentials(outcome, shared)
  with open(shared / 'clips/probe.csv') as file:
    probe = list(csv.DictReader(file))
  # Every file too short for the window has that reason.
  for row in probe:
    short = row['frames_decoded'] and int(row['frames_decoded']) < 16
    if short and not row['path'].startswith('broken/'):
      assert outcome.sources[row['path']]['reason'] == 'too_short'
  for row in probe:
    begins = {shot['start'] for shot in outcome.shots[row['path']]}
    assert set(json.loads(row['cutlist'] or '[]')) <= begins, row['path']
