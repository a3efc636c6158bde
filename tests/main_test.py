"""The command line of training, as a person meets it."""

import os
import subprocess
import sys

from conftest import ROOT


def run(*arguments, module='vdm.main'):
  return subprocess.run(
    [sys.executable, '-m', module, *arguments],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )


def test_misspelt_key_stops_with_the_right_name():
  done = run('--config', 'configs/synthetic.py', '--config.model.widht=64')
  assert done.returncode == 2
  assert len(done.stderr.strip().splitlines()) == 1
  assert 'model.widths' in done.stderr


def test_missing_dataset_names_the_command(tmp_path):
  done = run(
    '--config',
    'configs/video_folder.py:smoke',
    f'--config.data.root={tmp_path}',
    f'--config.data.source={tmp_path}',
    f'--workdir={tmp_path}/run',
  )
  assert done.returncode == 2
  last = done.stderr.strip().splitlines()[-1]
  assert 'python -m vdm.prepare clips --config' in last
  assert 'Traceback' not in done.stderr


def test_sampling_without_a_run_is_one_sentence(tmp_path):
  done = run('--workdir', str(tmp_path), module='vdm.sample')
  assert done.returncode == 2
  assert 'holds no run' in done.stderr
  assert 'Traceback' not in done.stderr
