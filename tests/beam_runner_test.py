"""With Beam, where it is installed: the same dataset, dead letters, no stop."""

import functools
import os
import signal
import subprocess
import sys
import time

from conftest import ROOT
import prepare_file_test
import pytest
from screening_test import pan

from tests import tiny_videos
from vdm.data import builders
from vdm.preparation import beam_runner
from vdm.preparation import datasets
from vdm.preparation import prepare_file
from vdm.preparation import video_dataset

OPTIONS = ['--runner=FnApiRunner']


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('beam') / 'videos'
  folder.mkdir()
  for number in range(4):
    tiny_videos.write_video(folder / f'{number}.mp4', pan(20, seed=number))
  (folder / 'bad.mp4').write_bytes(b'nothing')
  return folder


def build(root, source, options=None, run=beam_runner.run):
  data = prepare_file_test.make_data(root, source)
  data.limits.update(workers=2, seconds=300.0)
  runner = None
  if options:
    limits = video_dataset.worker_limits(data.limits)
    runner = functools.partial(run, options=options, limits=limits)
  return datasets.build(data, runner=runner)


def outcome(directory):
  return builders.read_info(directory), builders.read_skipped(directory)


def test_without_beam_one_sentence_says_what_to_do(monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  with pytest.raises(ImportError, match='pip install'):
    next(beam_runner.run(prepare_file.prepare, [], options=[], limits=None))


def test_beam_makes_the_same_dataset(source, tmp_path):
  pytest.importorskip('apache_beam')
  expected = outcome(build(tmp_path / 'local', source))
  assert outcome(build(tmp_path / 'beam', source, OPTIONS)) == expected


def crash(task, alive):
  """The decoder takes the process with it on one file."""
  if task.file.name == '2.mp4':
    os.kill(os.getpid(), signal.SIGSEGV)
  return prepare_file.prepare(task, alive)


def test_a_crash_is_a_dead_letter(source, tmp_path):
  pytest.importorskip('apache_beam')

  def run(function, tasks, **kwargs):
    assert function is prepare_file.prepare
    return beam_runner.run(crash, tasks, **kwargs)

  _, skipped = outcome(build(tmp_path, source, OPTIONS, run))
  reasons = {skip['source']: skip['reason'] for skip in skipped}
  assert reasons == {'2.mp4': 'crashed', 'bad.mp4': 'undecodable'}


@pytest.mark.slow
def test_the_portable_runner_makes_the_same_dataset(source, tmp_path):
  pytest.importorskip('apache_beam')
  service = subprocess.Popen(
    [
      sys.executable,
      '-m',
      'apache_beam.runners.portability.local_job_service_main',
      '-p',
      '18099',
    ],
    cwd=ROOT,
  )
  try:
    time.sleep(20)
    options = [
      '--runner=PortableRunner',
      '--job_endpoint=localhost:18099',
      '--environment_type=LOOPBACK',
    ]
    found = outcome(build(tmp_path / 'beam', source, options))
  finally:
    service.terminate()
    service.wait()
  assert found == outcome(build(tmp_path / 'local', source))
