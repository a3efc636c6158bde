"""Runs the commands of a sweep here, one after the other.

A sweep keeps no state but the folders of its runs. Whatever stopped it, the
same command resumes: finished runs are skipped, begun ones resume.
"""

from collections.abc import Callable, Mapping, Sequence
import os
import shlex
import signal
import subprocess
import sys
import time

from absl import logging
from etils import epath

from vdm.common import errors
from vdm.multihost import coordination
from vdm.multihost import workdir_lock
from vdm.sweeping import halving
from vdm.sweeping import ladder
from vdm.sweeping import plan as plans
from vdm.sweeping import tied

PYTHON = (sys.executable, '-m')
# A run whose sweep was killed saves its state and ends.
LOCK_SECONDS = 600.0


class Runner:
  """Starts commands, and passes on the signals that ask to stop.

  A context manager: SIGTERM, SIGUSR1 and SIGINT are handled inside of it.
  """

  def __init__(
    self, environ: Mapping[str, str], program: Sequence[str] = PYTHON
  ):
    """Starts nothing yet.

    Args:
      environ: of the commands.
      program: what a command's name and arguments follow.
    """
    self.stopping = False
    self._environ, self._program = dict(environ), list(program)
    self._process: subprocess.Popen | None = None
    self._before = {}

  def __enter__(self) -> 'Runner':
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
      self._before[number] = signal.signal(number, self._stop)
    return self

  def __exit__(self, *error) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def __call__(self, module: str, arguments: Sequence[str]) -> int:
    """Runs a command to its end and returns its exit code."""
    command = [*self._program, module, *arguments]
    logging.info('%s', shlex.join(command))
    # In a session of its own: Ctrl-C reaches this process alone, which passes
    # it on once.
    self._process = subprocess.Popen(
      [sys.executable, tied.__file__, str(os.getpid()), *command],
      env=self._environ,
      start_new_session=True,
    )
    if self.stopping:  # A signal came while it was started.
      self._process.terminate()
    code = self._process.wait()
    self._process = None
    return code

  def _stop(self, number, frame) -> None:
    del number, frame
    self.stopping = True
    if self._process is not None:
      self._process.terminate()


def run(
  plan: plans.Plan, runner: Runner, rungs: ladder.Rungs | None = None
) -> tuple[int, list[epath.Path]]:
  """Runs what is not done yet.

  A run that fails does not keep others from running: a value with which
  training diverges is a result, too.

  Args:
    plan: of the sweep.
    runner: of its commands.
    rungs: where values are judged and the worse half stops, see `halving`.

  Returns:
    (exit code, folders of the finished runs).

  Raises:
    UsageError: a folder holds something else, or is in use.
  """
  for item in [*filter(None, [plan.shared]), *plan.runs]:
    plans.is_done(item)  # Before anything runs.
  with workdir_lock.WorkdirLock(plan.workdir):
    if plan.shared is not None:
      code = _run_one(plan.shared, runner)
      if code:
        logging.error('Without the autoencoder no run can start.')
        return code, []
    if plan.latents and not plans.latents_are_there(plan):
      code = _exit_code(runner('vdm.prepare', plan.latents), runner)
      if code:
        return code, []
    code, left, lost = 0, plan.runs, False
    if rungs is not None:
      code, left, lost = _halve(plan, runner, rungs)
      if code:
        return code, []
    code, finished, failed = _run_all(left, runner)
  return code or int(bool(failed or lost)), [x.folder for x in finished]


def _halve(
  plan: plans.Plan, runner: Runner, rungs: ladder.Rungs
) -> tuple[int, list[plans.Run], bool]:
  """Returns (exit code, runs that go to the end, whether any value is lost)."""
  decided, left, lost = halving.begin(rungs, plan), plan.runs, False
  for i, step in enumerate(rungs.steps):
    if i == len(decided):
      code, _, failed = _run_all(
        left,
        runner,
        [f'--stop_at={step}'],
        lambda item, step=step: halving.reached(item, rungs, step),
      )
      if code:
        return code, [], False
      decided.append(halving.decide(rungs, plan, decided, left, failed))
      logging.info('%s', halving.text(rungs, decided))
    # A value that diverges without failing has no score either.
    lost |= bool({*map(ladder.value_of, left)} - {*decided[i]['scores']})
    kept = decided[i]['kept']
    if len(kept) < ladder.LEAST:
      logging.error('Fewer than %d values are left to compare.', ladder.LEAST)
      return 1, [], True
    left = [item for item in left if ladder.value_of(item) in kept]
  return 0, left, lost


def _run_all(
  items: Sequence[plans.Run],
  runner: Runner,
  arguments: Sequence[str] = (),
  is_there: Callable[[plans.Run], bool] = lambda item: False,
) -> tuple[int, list[plans.Run], list[plans.Run]]:
  """Returns (exit code if it stops all, runs that are done, that failed).

  Args:
    items: to run.
    runner: of their commands.
    arguments: besides those of each run.
    is_there: whether a run has gone as far as it is to go.
  """
  done, failed = [], []
  for i, item in enumerate(items, 1):
    logging.info('Run %d of %d: %s.', i, len(items), item.title)
    code = 0 if is_there(item) else _run_one(item, runner, arguments)
    if code in (errors.USAGE_ERROR, coordination.STOPPED):
      return code, done, failed
    (failed if code else done).append(item)
  for item in failed:
    logging.error('Failed: %s, in %s.', item.title, item.folder)
  return 0, done, failed


def _run_one(
  item: plans.Run, runner: Runner, arguments: Sequence[str] = ()
) -> int:
  """Returns the exit code of a run, 0 if it was finished already."""
  if runner.stopping:
    return coordination.STOPPED
  if plans.is_done(item):
    logging.info('%s is finished.', item.folder)
    return 0
  _wait_for(item.folder)
  return _exit_code(runner('vdm.main', [*item.arguments, *arguments]), runner)


def _exit_code(code: int, runner: Runner) -> int:
  """Returns 75 for what a signal to the sweep has ended, 1 for another."""
  if runner.stopping and code:
    return coordination.STOPPED
  return code if code in (0, errors.USAGE_ERROR, coordination.STOPPED) else 1


def _wait_for(folder: epath.Path) -> None:
  """Waits until a run that an earlier sweep has started is gone."""
  deadline, said = time.monotonic() + LOCK_SECONDS, False
  while holder := workdir_lock.holder(folder):
    if time.monotonic() > deadline:
      raise errors.UsageError(
        f'{folder} is in use by {holder}: wait until that run has ended.'
      )
    if not said:
      logging.info('Waiting for %s, which is in %s.', holder, folder)
      said = True
    time.sleep(0.5)
