"""The command: builds, reports, and ends with one sentence otherwise."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import tiny_videos

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = """
from vdm.config import schema

def get_config():
  config = schema.default()
  config.data.update(dict(
      name='ucf101', resolution=32, source={source!r}, root={root!r}))
  config.stages.autoencoder = schema.stage(
      objective='autoencoder', steps=200, resolution=32)
  config.train.order = ('autoencoder',)
  return config
"""


def prepare(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'vdm.prepare', *map(str, arguments)],
    cwd=ROOT,
    env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='2'),
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture
def config_file(tmp_path):
  source = tiny_videos.make_ucf101(tmp_path / 'ucf', n=4)
  path = tmp_path / 'tiny.py'
  path.write_text(
    CONFIG.format(source=str(source), root=str(tmp_path / 'data'))
  )
  return path


def test_clips(config_file):
  clip = config_file.parent / 'ucf/UCF-101/Biking/v_Biking_g01_c01.avi'
  clip.unlink()
  result = prepare('clips', '--config', config_file)
  assert result.returncode == 2
  assert '--allow_missing' in result.stderr.splitlines()[-1]
  assert 'Traceback' not in result.stderr
  result = prepare('clips', '--config', config_file, '--allow_missing')
  assert result.returncode == 0, result.stderr
  # Two groups of 5 and 6 frames, three classes, less one clip of 5.
  assert '5 shots, 5 records, 28 frames of 32 px at 25/s' in result.stdout
  assert 'skipped 1 files: 1 missing' in result.stdout
  assert 'fingerprint ' in result.stdout


@pytest.mark.parametrize(
  'arguments, sentence',
  [
    ((), 'Say what to prepare'),
    (('clip',), 'Say what to prepare'),
    (('clips', '--config', '{}', '--allow_mising'), '--allow_missing'),
    (('clips', '--config', '{}', '--config.data.encodin=jpeg'), 'encoding'),
  ],
)
def test_mistakes_are_one_line(config_file, arguments, sentence):
  result = prepare(*(a.format(config_file) for a in arguments))
  assert result.returncode == 2
  assert len(result.stderr.splitlines()) == 1
  assert sentence in result.stderr
