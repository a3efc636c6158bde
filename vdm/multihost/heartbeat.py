"""Heartbeats: how a process detects that others failed, died or hang.

A collective with a process that is dead or unreachable can hang forever, and so
can one that a faulty program entered. So every process writes a heartbeat once
a second, which says how far its main thread has come and where it is. A process
ends itself when

  another process failed: with the exit code of a failure, so that no scheduler
  starts it again;
  another process fell silent, or lost one itself: with that of a run which was
  stopped, like the next;
  no process has made progress for longer than a barrier may take: it logs where
  each of them is, and its own stacks.

When process 0 ends, the store goes with it: jax then aborts the other processes
by itself (SIGABRT, its message names the leader). jax's client can be given a
function to call instead, which is no use: it fails to pass the argument.
"""

from collections.abc import Iterator, Mapping
import contextlib
import faulthandler
import itertools
import threading
import time

from absl import logging
import jax

from vdm.multihost import coordination
from vdm.multihost import main_thread
from vdm.multihost import preemption

PERIOD = 1.0  # Seconds between heartbeats.

_FAILED = 'failed: '
_LOST = 'lost another process: '


class Heartbeat:
  """Writes heartbeats, and ends this process when others fail or hang.

  A context manager; with one process it does nothing.

  Attributes:
    vote: on stopping; None for one process.
  """

  def __init__(self, process_timeout: float, barrier_timeout: float):
    """Sets the time limits, that of `coordination.gather` too.

    Args:
      process_timeout: seconds of silence after which a process counts as dead.
      barrier_timeout: seconds to wait for a live process, at a barrier or in a
        step.
    """
    coordination.set_limit(barrier_timeout)
    self._timeout, self._limit = process_timeout, barrier_timeout
    self._closed = threading.Event()
    self._lock, self._failed = threading.Lock(), False
    self._progress = 0, 0.0  # Polls, and the time of the last one.
    # {process: (its last text, when it changed)}
    count, now = jax.process_count(), time.monotonic()
    self._heard = dict.fromkeys(range(count), ('', now))
    self._thread = threading.Thread(target=self._run, daemon=True)
    self.vote = None
    if count > 1:
      self.vote = preemption.Vote(jax.process_index(), count)

  def __enter__(self) -> 'Heartbeat':
    self._thread.start()
    return self

  def __exit__(self, *error):
    self._closed.set()
    self._thread.join()

  @contextlib.contextmanager
  def reporting(self) -> Iterator[None]:
    """Tells the others if this process fails, the first time."""
    try:
      yield
    except BaseException as error:
      if self.vote is not None and not self._failed:
        self._report(error)
      raise

  def _report(self, error: BaseException):
    text = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
    lost = isinstance(error, coordination.CoordinationError)
    if (
      isinstance(error, jax.errors.JaxRuntimeError)
      and 'RESOURCE_EXHAUSTED' not in text
    ):
      lost = True
      # Usually another process has ended, which takes time to show.
      logging.error('A collective failed (%s): which process is gone?', text)
      time.sleep(self._timeout + 4 * PERIOD)
    with contextlib.suppress(jax.errors.JaxRuntimeError), self._lock:
      self._failed = True  # No heartbeat may overwrite this message.
      self._write((_LOST if lost else _FAILED) + text)

  def _write(self, text: str):
    coordination.write(f'{coordination.ALIVE}{jax.process_index()}', text)

  def _run(self):
    for beat in itertools.count() if self.vote else ():
      try:
        polls = self.vote.polls
        with self._lock:
          if not self._failed:
            place = main_thread.place()
            self._write(f'beat {beat}, {polls} steps or parts done, in {place}')
        heard = coordination.read(coordination.ALIVE)
        self._check_others(heard, time.monotonic())
        self._check_progress(polls, time.monotonic())
        self.vote.tick()
      except jax.errors.JaxRuntimeError as error:
        # Process 0, which has the store, is gone or cannot be reached.
        self._check_others({}, time.monotonic(), str(error))
      if self._closed.wait(PERIOD):
        return

  def _check_others(
    self, heard: Mapping[int, str], now: float, problem: str = ''
  ):
    """Ends this process if another one failed, or wrote nothing for too long.

    A process that has failed itself ends by what it raised. A failure of
    others counts from the second time it is read on: what fails alike
    everywhere is then said by each.

    Args:
      heard: {process: its newest text}.
      now: time in seconds.
      problem: why the store cannot be read, which only says that process 0 is
        gone.
    """
    if self._failed:
      return
    for process, text in heard.items():
      known = text == self._heard[process][0] and process != jax.process_index()
      if known and text.startswith((_FAILED, _LOST)):
        self._stop(
          f'{coordination.process_names([process])} {text}',
          1 if text.startswith(_FAILED) else coordination.STOPPED,
        )
      if text != self._heard[process][0]:
        self._heard[process] = text, now
    others = [0] if problem else set(self._heard) - {jax.process_index()}
    silent = [
      p for p in sorted(others) if now - self._heard[p][1] > self._timeout
    ]
    if silent:
      detail = f' ({" ".join(problem.split())[:200]})' if problem else ''
      self._stop(
        f'{coordination.process_names(silent)} has not been heard of for '
        f'{self._timeout:.0f} s{detail}'
      )

  def _check_progress(self, polls: int, now: float):
    """Ends this process if its main thread has not polled for too long.

    Before the first poll data sets are built and programs compiled, with
    barriers that have limits of their own.
    """
    if not polls or polls != self._progress[0]:
      self._progress = polls, now
    elif now - self._progress[1] > self._limit and not self._closed.is_set():
      faulthandler.dump_traceback()
      self._stop(
        f'No step or part has finished for {self._limit:.0f} s: the processes '
        'wait for each other, or for data. They are:'
        f'{coordination.last_heartbeats()}\nThe stacks of this process are '
        'above'
      )

  def _stop(self, reason: str, code: int = coordination.STOPPED):
    if not self._closed.is_set():
      again = ': run the same command again' if code != 1 else ''
      logging.error('%s. Stopping too%s.', reason, again)
      coordination.leave(code)
