"""The command line of training, as a person meets it."""

import os
import socket
import subprocess
import sys

from conftest import ROOT
import pytest

from vdm import __main__


def run(*arguments, module='vdm.main', platform='cpu', **environ):
  return subprocess.run(
    [sys.executable, '-m', module, *arguments],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': platform, **environ},
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


# In a process: flags of two commands would be defined twice here.
EXPLAIN = """
from vdm import main
from vdm.checkpoints import manager
from vdm.common import buckets
from vdm.common import errors
from vdm.data import clip_reader
for error in (
  errors.UsageError('set x'),
  PermissionError(13, 'Permission denied', 'runs'),
  NotADirectoryError(20, 'Not a directory', 'runs'),
  FileExistsError(17, 'File exists', 'runs'),
  IsADirectoryError(21, 'Is a directory', 'runs'),
  manager.CheckpointError('corrupt'),
  clip_reader.BadRecordsError('many'),
  buckets.UnreachableError('later'),
  ValueError('a mistake of the program'),
):
  print(main.explain(error), flush=True)
"""


def test_what_a_person_can_mend_is_one_sentence():
  done = subprocess.run(
    [sys.executable, '-c', EXPLAIN],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split() == ['2'] * 5 + ['1'] * 4
  lines = done.stderr.splitlines()
  assert lines[0] == 'set x'
  assert lines[5:8] == ['corrupt', 'many', 'later']
  # A mistake of the program keeps its traceback.
  assert lines[8:] == ['ValueError: a mistake of the program']


@pytest.mark.parametrize('joined', [False, True])
def test_a_platform_that_is_not_there_stops_in_one_sentence(joined, tmp_path):
  environ = {}
  if joined:  # There is no device to ask how many processes there are.
    with socket.socket() as server:
      server.bind(('localhost', 0))
      port = server.getsockname()[1]
    environ = {
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'JAX_NUM_PROCESSES': '1',
      'JAX_PROCESS_ID': '0',
    }
  done = run(
    '--config',
    'configs/synthetic.py',
    f'--workdir={tmp_path}/run',
    platform='nope',
    **environ,
  )
  assert done.returncode == 2
  assert 'JAX_PLATFORMS=nope' in done.stderr.strip().splitlines()[-1]
  assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('command', __main__.COMMANDS)
def test_help_says_where_the_keys_are(command):
  done = run('--help', module=f'vdm.{command}')
  assert (done.returncode, done.stderr) == (0, '')
  assert f'python -m vdm.{command} ' in done.stdout
  assert '--config' in done.stdout
  assert 'vdm/config/schema.py' in done.stdout
  assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_package_lists_its_commands():
  done = run(module='vdm')
  assert done.returncode == 0
  lines = done.stdout.splitlines()
  for command, line in zip(__main__.COMMANDS, lines):
    assert line.startswith(f'  python -m vdm.{command} ')
  assert '  Trains a model' in lines[__main__.COMMANDS.index('main')]
  done = run('trian', module='vdm')
  assert done.returncode == 2 and 'python -m vdm.main' in done.stderr


def test_every_command_is_listed():
  commands = {
    path.stem
    for path in (ROOT / 'vdm').glob('*.py')
    if 'app.run(main' in path.read_text()
  }
  assert commands == set(__main__.COMMANDS)
