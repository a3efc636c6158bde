"""Starts the real command, kills it in a given phase, and checks what follows.

What a run is doing is read from its files and its log, before the kill to hit
a phase and after it to tell which one was hit. The second is exact, because a
killed process changes nothing any more.

  compile     a stage has started and its first step is not compiled
  evaluation  a step that ends with one is logged, its result is not
  sampling    a preview is due and not written, or the last videos are
  save        the folder of an unfinished checkpoint exists
  border      a stage is over, the next one has not started
  plain       anything else after the first step
  start       anything else before it
"""

import dataclasses
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import uuid

from etils import epath
import numpy as np
import tiny

from vdm.checkpoints import reader
from vdm.training import stages
from vdm.training import writer

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = 'tests/faults/tiny.py'
PHASES = (
  'compile',
  'evaluation',
  'sampling',
  'save',
  'border',
  'plain',
)
# Values of a row that depend on the machine, not on the training.
OF_THE_MACHINE = frozenset(
  """
  seconds_per_step clips_per_second data_wait_share tflops_per_second
  host_rss_peak_gib device_peak_gib compile_seconds tflops_per_step
  share_of_peak_flops train_seconds
  """.split()
)
TINY = tiny.get_config()
SPANS = stages.spans(TINY)
POLL = 0.005  # Seconds; looking takes a fifth of that.
# Compiling takes most of a start, and no test here measures speed.
QUICK = {
  'JAX_PLATFORMS': 'cpu',
  # Of tests/conftest.py, if this is a test.
  'XLA_FLAGS': os.environ.get(
    'XLA_FLAGS', '--xla_backend_optimization_level=0'
  ),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
}
_MARK = 'VDM_FAULTS_RUN'


class Trainer:
  """One start of the command.

  Attributes:
    workdir: of the run.
    log: file of its output.
  """

  def __init__(self, workdir, *options, command=None, log='log.txt', **environ):
    """Starts the command.

    Args:
      workdir: of the run.
      *options: further flags.
      command: what to start instead of `python -m vdm.main`.
      log: name of the file of its output.
      **environ: environment variables beside this process's.
    """
    self.workdir = pathlib.Path(workdir)
    self.workdir.mkdir(parents=True, exist_ok=True)
    self.log = self.workdir / log
    self._offset = self.log.stat().st_size if self.log.exists() else 0
    self._mark = uuid.uuid4().hex
    command = command or [sys.executable, '-m', 'vdm.main']
    arguments = ['--config', CONFIG, f'--workdir={workdir}', *options]
    with self.log.open('ab') as output:
      self.process = subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=os.environ | {_MARK: self._mark} | QUICK | environ,
      )

  def printed(self):
    """Returns the output since the start."""
    with self.log.open('rb') as file:
      file.seek(self._offset)
      return file.read().decode(errors='replace')

  def wait(self, timeout=1200):
    """Returns the exit code; kills the process after the timeout."""
    try:
      return self.process.wait(timeout)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()
      raise

  def kill(self, number=signal.SIGKILL, timeout=300):
    """Sends a signal, and returns when the process has ended."""
    self.process.send_signal(number)
    self.wait(timeout)

  def family(self):
    """Returns the ids of its live processes, children included."""
    mark, found = f'{_MARK}={self._mark}'.encode(), []
    for folder in pathlib.Path('/proc').iterdir():
      if not folder.name.isdigit():
        continue
      try:
        state = (folder / 'stat').read_text().rpartition(')')[2].split()[0]
        environ = (folder / 'environ').read_bytes()
      except OSError:
        continue
      if mark in environ and state != 'Z':
        found.append(int(folder.name))
    return found

  def survivors(self, timeout=10):
    """Returns a problem if processes of a killed run survive; else []."""
    deadline = time.monotonic() + timeout
    while (alive := self.family()) and time.monotonic() < deadline:
      time.sleep(0.1)
    return [f'{len(alive)} processes survive'] if alive else []

  def end(self):
    """Returns the last lines of its output."""
    return self.printed()[-1000:]

  def phase(self):
    """Returns the phase that it is in, see the module's docstring."""
    return phase(self.workdir, self.printed())


def start_several(workdir, count, devices, *options, each=None, **settings):
  """Starts one run in several processes on this machine.

  Args:
    workdir: of the run, or a list with one for each process.
    count: of processes.
    devices: virtual ones of each process.
    *options: further flags.
    each: list of each process's own flags.
    **settings: for `Trainer`.

  Returns:
    The `Trainer`s, in order of process.
  """
  flags = f'--xla_force_host_platform_device_count={devices}'
  settings |= {'XLA_FLAGS': f'{QUICK["XLA_FLAGS"]} {flags}'}
  if count == 1:
    return [Trainer(workdir, *options, log='log_0.txt', **settings)]
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  workdirs = workdir if isinstance(workdir, list) else [workdir] * count
  return [
    Trainer(
      workdirs[index],
      *options,
      *(each[index] if each else ()),
      log=f'log_{index}.txt',
      JAX_COORDINATOR_ADDRESS=f'127.0.0.1:{port}',
      JAX_NUM_PROCESSES=str(count),
      JAX_PROCESS_ID=str(index),
      **settings,
    )
    for index in range(count)
  ]


def phase(workdir, printed):
  """Returns the phase of a run, by its files and its output.

  Args:
    workdir: of the run.
    printed: output of the newest start of the command.
  """
  if list((workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*')):
    return 'save'
  started = re.findall(r'Stage (\w+): steps', printed)
  compiled = re.findall(r'(\w+): compiled a step in', printed)
  if 'Making the' in printed.rpartition('resumed_from')[2] and started:
    done = (workdir / 'final' / 'step.txt').exists()
    return 'end' if done else 'sampling'
  if not started:
    return 'start'
  rows = tail_rows(workdir)
  step = max((row['step'] for row in rows if 'loss' in row), default=0)
  span = next(s for s in SPANS if s.name == started[-1])
  if step == span.stop and previewed(workdir, rows, step, span):
    return 'border'
  if started[-1] not in compiled:
    return 'compile'
  if step > span.start and not evaluated(rows, step, span):
    return 'evaluation'
  if step > span.start and not previewed(workdir, rows, step, span):
    return 'sampling'
  return 'plain'


def due(step, span, what):
  """Returns whether a step of a stage ends with an evaluation or a preview."""
  every = TINY.train[f'{what}_every']
  return step == span.stop or (step - span.start) % every == 0


def evaluated(rows, step, span):
  """Returns whether a step's evaluation is complete."""
  names = {name for row in rows if row['step'] == step for name in row}
  return not due(step, span, 'eval') or bool(names & {'val_loss', 'val_psnr'})


def previewed(workdir, rows, step, span):
  """Returns whether a step's evaluation and samples are complete."""
  sheet = workdir / 'samples' / f'step_{step:08d}' / 'sheet.png'
  return evaluated(rows, step, span) and (
    not due(step, span, 'preview') or sheet.exists()
  )


def tail_rows(workdir):
  """Returns the complete rows of a log that is being written."""
  try:
    text = (workdir / writer.NAME).read_text()
  except FileNotFoundError:
    return []
  rows = []
  for line in text.splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def kill_in(
  trainer, wanted, rng, occurrence=1, number=signal.SIGKILL, timeout=900
):
  """Ends a run in a phase, at a random moment of it.

  Args:
    trainer: the run.
    wanted: the phase.
    rng: np.random.Generator, for the moment.
    occurrence: how often the phase must have occurred.
    number: the signal.
    timeout: seconds after which to give up.

  Returns:
    The phase that the run was in when it was killed or asked to stop; None if
    it had ended before.
  """
  seen, last, deadline = 0, None, time.monotonic() + timeout
  while trainer.process.poll() is None:
    if time.monotonic() > deadline:
      trainer.kill()
      raise TimeoutError(f'{wanted} did not occur')
    now = trainer.phase()
    seen += now == wanted and now != last
    last = now
    if now == wanted and seen >= occurrence:
      # Phases last from a few ms to seconds: uniform in the logarithm.
      time.sleep(float(np.exp(rng.uniform(np.log(1e-3), np.log(0.3)))))
      break
    time.sleep(POLL)
  before = trainer.phase()
  if trainer.process.poll() is not None:
    return None
  trainer.kill(number)
  return trainer.phase() if number == signal.SIGKILL else before


def complete_steps(workdir):
  """Returns the steps whose save is complete: Orbax renames the folder last."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  if not folder.exists():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


@dataclasses.dataclass
class Evidence:
  """What a kill left, read before the next start.

  Attributes:
    saved: newest step whose save was complete; 0 if there is none.
    logged: newest step in the log.
    rows: {(step, kind): values} of the log.
  """

  saved: int
  logged: int
  rows: dict


def evidence(workdir):
  """Returns the `Evidence` of a run that has ended."""
  rows = comparable(writer.read_rows(workdir)) if has_log(workdir) else {}
  return Evidence(
    saved=max(complete_steps(workdir), default=0),
    logged=max((step for step, kind in rows if kind == 'loss'), default=0),
    rows=rows,
  )


def has_log(workdir):
  return (pathlib.Path(workdir) / writer.NAME).exists()


def comparable(rows):
  """Returns {(step, kind of row): values that training determines}."""
  found = {}
  for row in rows:
    kinds = [k for k in ('loss', 'val_psnr', 'val_loss') if k in row]
    if kinds:
      found[row['step'], kinds[0]] = {
        k: v for k, v in row.items() if k not in OF_THE_MACHINE
      }
  return found


def resumed_from(trainer):
  """Returns the step that a start resumed from, 0 for a new run.

  None if it ended before it logged that.
  """
  printed = trainer.printed()
  found = re.findall(r'resumed_from (\d+)', printed)
  if found:
    return int(found[0])
  return 0 if 'Stage ' in printed else None


@dataclasses.dataclass
class Result:
  """Everything that a finished run determines.

  Attributes:
    rows: of its log, see `comparable`.
    digests: of every array of its last checkpoint.
    videos: bytes of its last videos.
    sheets: {name: bytes} of the previews.
  """

  rows: dict
  digests: dict
  videos: bytes
  sheets: dict


def result(workdir):
  """Returns the `Result` of a finished run, in a local folder or a bucket."""
  workdir = epath.Path(workdir)
  step = SPANS[-1].stop
  record = reader.read_record(workdir / 'checkpoints', step)
  samples = io.BytesIO((workdir / 'final/samples.npz').read_bytes())
  with np.load(samples, allow_pickle=False) as arrays:
    videos = arrays['videos'].tobytes()
  sheets = {
    p.parent.name: p.read_bytes() for p in workdir.glob('samples/*/sheet.png')
  }
  rows = comparable(writer.read_rows(workdir))
  return Result(rows, record.items, videos, sheets)


def problems_of_resume(left, resumed):
  """Returns problems with the step that a start resumed from.

  Args:
    left: `Evidence` of the kill before.
    resumed: the step.
  """
  found = []
  if resumed != left.saved:
    found.append(f'resumed from {resumed}, and {left.saved} was saved')
  if left.logged - resumed >= 2 * tiny.SAVE_EVERY:
    found.append(
      f'resumed from {resumed}, two intervals behind step {left.logged}'
    )
  return found


def problems_of_stop(trainer, left):
  """Returns problems with how a run stopped when it was asked to.

  Args:
    trainer: the run.
    left: `Evidence` of it.
  """
  code, problems = trainer.process.returncode, []
  if code != 75 and not (code == 0 and left.logged == SPANS[-1].stop):
    problems.append(f'exit code {code}: {trainer.end()}')
  if left.saved != left.logged:
    problems.append(f'step {left.logged} logged and {left.saved} saved')
  return problems


def problems_of_rows(rows, reference):
  """Returns differences from the rows of the uninterrupted run."""
  return [
    f'step {step}, {kind}: {name} is {values.get(name)!r}, not {wanted!r}'
    for (step, kind), values in sorted(rows.items())
    for name, wanted in reference.get((step, kind), {'row': None}).items()
    if not same(values.get(name), wanted)
  ]


def same(value, wanted):
  """Returns whether two values are equal; NaN equals NaN."""
  return value == wanted or (value != value and wanted != wanted)


def problems_of_result(found, reference):
  """Returns differences from the result of the uninterrupted run."""
  problems = problems_of_rows(found.rows, reference.rows)
  if found.rows.keys() != reference.rows.keys():
    missing = reference.rows.keys() ^ found.rows.keys()
    problems.append(f'rows in one of the logs only: {sorted(missing)[:4]}')
  for name in ('digests', 'videos', 'sheets'):
    if getattr(found, name) != getattr(reference, name):
      problems.append(f'other {name}')
  return problems
