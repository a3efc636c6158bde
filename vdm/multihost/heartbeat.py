"""What a process of a run knows of the others, and how it ends without them.

A collective with a process that is dead or lost can hang for ever, and so can
one that a program got wrong. So every process beats once a second: it says how
far its main thread has come, and where it is. Ends come from

  another process that failed, or fell silent;
  no progress anywhere for longer than a barrier may take: who is where is
  logged, and the stacks of this process.

The end of the first process takes the store along: jax then aborts the others
at once by itself (SIGABRT, its message names the leader). A function that jax's
client would call instead cannot be used: it fails to hand its argument over.
"""

from collections.abc import Mapping
import contextlib
import faulthandler
import itertools
import pathlib
import sys
import threading
import time

from absl import logging
import jax

from vdm.multihost import coordination
from vdm.multihost import stop_vote

PERIOD = 1.0  # Seconds between beats.

_FAILED = 'failed: '
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


class Watch:
  """Beats, and ends this process when others fail, fall silent or hang.

  A context manager; `coordination.gather` waits as long as it says.

  Attributes:
    vote: on stopping; None for one process.
  """

  def __init__(self, peer_timeout: float, barrier_timeout: float):
    """Does not begin yet.

    Args:
      peer_timeout: seconds of silence after which a process is given up.
      barrier_timeout: seconds to wait for one that is alive, at a barrier or
        in a step.
    """
    coordination.set_limit(barrier_timeout)
    self._timeout, self._limit = peer_timeout, barrier_timeout
    self._closed, self._moved = threading.Event(), (0, 0.0)
    self._index, self._count = jax.process_index(), jax.process_count()
    self._heard, self._thread, self.vote = {}, None, None
    self._lock, self._failed = threading.Lock(), False
    if self._count > 1:
      self._keys = coordination.store()
      self.vote = stop_vote.Vote(
        self._index, self._count, self._put, self._get, self._stop_at_once
      )
      self._thread = threading.Thread(target=self._work, daemon=True)

  def __enter__(self) -> 'Watch':
    if self._thread is not None:
      self._thread.start()
    return self

  def __exit__(self, *error):
    self._closed.set()
    if self._thread is not None:
      self._thread.join()

  @contextlib.contextmanager
  def reporting(self):
    """Waits for the others at the end, or tells them that this one failed."""
    try:
      yield
      coordination.gather('leaving')
    except BaseException as error:
      if self._count > 1:
        self._report(error)
      raise

  def _report(self, error: BaseException):
    text = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
    lost = isinstance(error, jax.errors.JaxRuntimeError)
    if lost and 'RESOURCE_EXHAUSTED' not in text:
      # The usual cause is another process's end, which takes time to show.
      logging.error('A collective failed (%s): which process is gone?', text)
      time.sleep(self._timeout + 4 * PERIOD)
    with contextlib.suppress(jax.errors.JaxRuntimeError), self._lock:
      self._failed = True  # The last that is heard of this process.
      self._put(f'{coordination.ALIVE}{self._index}', _FAILED + text)

  def _put(self, key: str, text: str):
    self._keys.key_value_set(key, text, allow_overwrite=True)

  def _get(self, folder: str) -> dict[int, str]:
    return coordination.numbered(self._keys.key_value_dir_get(folder))

  def _work(self):
    began = time.monotonic()
    self._heard = dict.fromkeys(range(self._count), ('', began))
    for beat in itertools.count():
      try:
        polls = self.vote.polls
        text = f'beat {beat}, {polls} steps or parts done, in {_main_place()}'
        with self._lock:
          if not self._failed:
            self._put(f'{coordination.ALIVE}{self._index}', text)
        self._listen(self._get(coordination.ALIVE), time.monotonic())
        self._look_after(polls, time.monotonic())
        self.vote.tick()
      except jax.errors.JaxRuntimeError as error:
        # The store is the first process's: it is gone, or cannot be reached.
        self._listen({}, time.monotonic(), str(error))
      if self._closed.wait(PERIOD):
        return

  def _listen(self, said: Mapping[int, str], now: float, problem: str = ''):
    """Gives up whoever said that it failed, or nothing new for too long."""
    for process, text in said.items():
      if text.startswith(_FAILED) and process != self._index:
        self._give_up(f'{coordination.name([process])} {text}')
      if text != self._heard[process][0]:
        self._heard[process] = text, now
    # Without the store nobody is heard; it is the first process that is gone.
    others = [0] if problem else set(self._heard) - {self._index}
    silent = [
      p for p in sorted(others) if now - self._heard[p][1] > self._timeout
    ]
    if silent:
      self._give_up(
        f'{coordination.name(silent)} has not been heard of for '
        f'{self._timeout:.0f} s'
        + (f' ({" ".join(problem.split())[:200]})' if problem else '')
      )

  def _look_after(self, polls: int, now: float):
    """Gives up a run whose main thread has not come on for too long.

    Before the first poll data sets are built and programs compiled, with
    barriers that have limits of their own.
    """
    if not polls or polls != self._moved[0]:
      self._moved = polls, now
    elif now - self._moved[1] > self._limit and not self._closed.is_set():
      faulthandler.dump_traceback()
      self._give_up(
        f'Nothing has come to an end for {self._limit:.0f} s: the processes '
        f'wait for each other, or for data. They are:'
        f'{coordination.whereabouts()}\nThe stacks of this one are above'
      )

  def _give_up(self, why: str):
    if not self._closed.is_set():
      logging.error(
        '%s. This process stops too: run the same command again.', why
      )
      coordination.leave(coordination.STOPPED)

  def _stop_at_once(self):
    logging.warning('Stopped before the first step: nothing is lost.')
    coordination.leave(coordination.STOPPED)


def _main_place() -> str:
  """Returns the line of this package that the main thread is in."""
  frame = sys._current_frames().get(threading.main_thread().ident)
  while frame is not None:
    path = pathlib.Path(frame.f_code.co_filename)
    if path.is_relative_to(_PACKAGE):
      place = path.relative_to(_PACKAGE.parent)
      return f'{place}:{frame.f_lineno} ({frame.f_code.co_name})'
    frame = frame.f_back
  return 'another package'
