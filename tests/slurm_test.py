"""launch/slurm.sbatch on a fake Slurm: requeues, signals, real training."""

import os
import pathlib
import re
import shlex
import signal
import sys
import time

from conftest import ROOT
import fake_slurm
import pytest

# A Python whose environment is complete: it installs nothing. What it does as
# `vdm.main` is up to the test.
PYTHON = f"""#!/bin/bash
case "$1 $2" in
  '-m pip') exit 0 ;;
  '-m vdm.main') {{main}} ;;
  *) exec {shlex.quote(sys.executable)} "$@" ;;
esac
"""
REAL = f'exec {shlex.quote(sys.executable)} "$@"'


class Clone:
  """A working copy with an environment, and a cluster that shares it."""

  def __init__(self, folder: pathlib.Path):
    self.root = folder / 'a clone'
    self.script = self.root / 'launch/slurm.sbatch'
    self.cluster = fake_slurm.Cluster(folder / 'slurm')
    (self.root / '.venv/bin').mkdir(parents=True)
    for name in 'launch vdm tests configs requirements'.split():
      (self.root / name).symlink_to(ROOT / name)
    for name in ('requirements.txt', 'pyproject.toml'):
      (self.root / name).symlink_to(ROOT / name)

  def submit(self, main, *arguments, options=(), **environ):
    """Submits and starts the script; vdm.main is a piece of shell."""
    python = self.root / '.venv/bin/python'
    python.write_text(PYTHON.format(main=main))
    python.chmod(0o755)
    job = self.cluster.sbatch(
      dict(options),
      self.script,
      *arguments,
      cwd=self.root,
      VDM_ACCELERATOR='cpu',
      **environ,
    )
    job.start()
    return job


@pytest.fixture
def clone(tmp_path):
  return Clone(tmp_path)


def wait_until(condition, job, seconds=600):
  deadline = time.monotonic() + seconds
  while not condition():
    assert job.process.poll() is None, job.output.read_text()
    assert time.monotonic() < deadline, job.output.read_text()
    time.sleep(0.02)


def test_what_the_script_asks_for():
  asked = fake_slurm.directives(ROOT / 'launch/slurm.sbatch')
  # To the tasks: with B: only the shell would get it.
  assert asked['signal'] == 'TERM@300'
  assert 'requeue' in asked
  assert asked['open-mode'] == 'append'
  assert (asked['nodes'], asked['ntasks-per-node']) == ('1', '1')
  # Of the laboratory, not of the project.
  assert not {'account', 'partition', 'qos', 'gres'} & asked.keys()


def test_arguments_and_cpus_reach_every_task(clone):
  job = clone.submit(
    """{ printf '%s|' "$SLURM_PROCID" "$SRUN_CPUS_PER_TASK" "$@"; echo; } \\
    >>seen; exit 0""",
    '--config',
    'configs/a.py',
    '--workdir',
    'my runs/a',
    options={'nodes': '2', 'cpus-per-task': '6'},
  )
  assert job.wait() == (0, False)
  seen = (clone.root / 'seen').read_text().splitlines()
  end = '6|-m|vdm.main|--config|configs/a.py|--workdir|my runs/a|'
  assert sorted(seen) == [f'0|{end}', f'1|{end}']
  assert clone.cluster.read('scontrol') == ''


@pytest.mark.parametrize('code, again', [(1, False), (2, False), (75, True)])
def test_only_a_stopped_run_goes_back_into_the_queue(clone, code, again):
  job = clone.submit(f'exit {code}')
  assert job.wait() == (code, again)
  wanted = f'requeue {job.id}\n' if again else ''
  assert clone.cluster.read('scontrol') == wanted
  said = f'job {job.id} is in the queue again' in job.output.read_text()
  assert said == again


# A task that sleeps until a signal, which it writes down.
SLEEPER = """
  trap 'echo TERM >>seen; exit 75' TERM
  trap 'echo USR1 >>seen; exit 75' USR1
  echo ready >>seen
  while :; do sleep 0.05; done"""


def started(clone):
  return lambda: (clone.root / 'seen').exists() and clone.cluster.read('tasks')


def test_the_warning_goes_to_the_tasks(clone):
  job = clone.submit(SLEEPER)
  wait_until(started(clone), job)
  job.warn()
  assert job.wait() == (75, True)
  assert (clone.root / 'seen').read_text() == 'ready\nTERM\n'


def test_a_signal_to_the_shell_alone_reaches_the_tasks_too(clone):
  job = clone.submit(SLEEPER, options={'signal': 'B:TERM@300'})
  wait_until(started(clone), job)
  job.warn()
  assert job.wait() == (75, True)
  assert (clone.root / 'seen').read_text() == 'ready\nUSR1\n'


def test_a_task_without_its_handler_yet_is_stopped_too(clone):
  job = clone.submit('echo ready >seen; exec sleep 60')
  wait_until(started(clone), job)
  job.warn()
  assert job.wait() == (128 + signal.SIGTERM, True)


def test_a_cancelled_job_does_not_come_back(clone):
  job = clone.submit(SLEEPER)
  wait_until(started(clone), job)
  job.cancel()
  assert job.wait() == (75, False)
  assert 'submit the same command again' in job.output.read_text()


def test_requeues_are_refused_or_too_many(clone):
  clone.cluster.write('refuse')
  job = clone.submit('exit 75')
  assert job.wait() == (75, False)
  assert 'submit the same command again' in job.output.read_text()
  (clone.cluster.folder / 'refuse').unlink()
  job.starts = 100
  job.start()
  assert job.wait() == (75, False)
  job.starts = 99
  job.start()
  assert job.wait() == (75, True)


def test_places_where_it_cannot_run(clone, tmp_path):
  job = clone.cluster.sbatch({}, clone.script, cwd=tmp_path)
  job.start()
  assert job.wait() == (2, False)
  assert (
    'has no launch/setup.sh: submit in the working' in job.output.read_text()
  )
  del job._environ['SLURM_JOB_ID']
  job.start()
  assert job.wait() == (2, False)
  assert 'sbatch launch/slurm.sbatch --config FILE' in job.output.read_text()


STEPS = 300  # Some 10 ms each: enough time to be stopped on the way.
TINY = (
  '--config',
  'tests/faults/tiny.py',
  '--workdir',
  'runs/tiny',
  '--config.data.root=data',
  "--config.train.order=('autoencoder',)",
  f'--config.stages.autoencoder.steps={STEPS}',
  *(f'--config.train.{key}_every=1000' for key in ('eval', 'preview', 'save')),
)


@pytest.mark.parametrize('nodes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_is_stopped_requeued_and_finished(clone, nodes):
  log = clone.root / 'runs/tiny/metrics.jsonl'
  job = clone.submit(
    REAL,
    *TINY,
    options={'nodes': str(nodes), 'cpus-per-task': '1'},
    JAX_COMPILATION_CACHE_DIR=str(ROOT / '.pytest_cache/faults'),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  )
  try:
    wait_until(lambda: log.exists() and '"step": 3' in log.read_text(), job)
    job.warn()
    assert job.wait() == (75, True), job.output.read_text()
    (saved,) = os.listdir(clone.root / 'runs/tiny/checkpoints')
    assert 3 <= int(saved) < STEPS
    job.start()
    assert job.wait() == (0, False), job.output.read_text()
  finally:
    job.kill()
  assert clone.cluster.read('scontrol') == f'requeue {job.id}\n'
  # One file has the output of both starts.
  said = job.output.read_text()
  assert re.findall(r'resumed_from (\d+)', said) == [str(int(saved))] * nodes
  assert f'job {job.id} is in the queue again' in said
  assert 'Finished: the autoencoder is in runs/tiny' in said
  found = 'Distributed: 2 Slurm tasks; process 1 of 2'
  assert said.count(found) == (2 if nodes == 2 else 0)
