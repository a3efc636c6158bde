"""The processes of a run: what they tell each other, and how long they wait.

Messages go through the key-value store of jax's coordination service, which
the first process holds, and not through the devices: they arrive while a
program compiles, a device computes or a collective hangs. A collective with a
process that is dead or lost can hang for ever, so

  `gather`  is the barrier of this package: it has a time limit and names who
            did not come;
  `Watch`   beats once a second and listens for the others: it ends this
            process, and says why, when another fails or falls silent;
  `Vote`    settles where all processes stop together.

The end of the first process takes the store along: jax then aborts the others
at once by itself (SIGABRT, its message names the leader). A function that jax's
client would call instead cannot be used: it fails to hand its argument over.

A run of one process uses the same calls, which then return at once.
"""

from collections.abc import Mapping
import contextlib
import itertools
import os
import threading
import time
from typing import Any

from absl import logging
import jax

STOPPED = 75  # Exit code: stopped before the end, run the same command again.
PERIOD = 1.0  # Seconds between beats.

_ALIVE, _FAILED = 'vdm/alive/', 'failed: '
_rounds = itertools.count()
_limit = [1800.0]  # Seconds that `gather` waits; set by `Watch`.


class PeerError(RuntimeError):
  """Another process did not come to where all have to be."""


def store() -> Any:
  """The key-value store of jax's coordination service."""
  # No public name yet; Orbax reaches for it in the same way.
  from jax._src import distributed

  return distributed.global_state.client


def gather(what: str, text: str = '') -> list[str]:
  """What every process says, in their order; the same on all.

  Every process calls it, from its main thread, as often and in the same order
  as the others.

  Args:
    what: for a person, what this is about.
    text: what this process says.

  Raises:
    PeerError: some process did not come in time; says which.
  """
  if jax.process_count() == 1:
    return [text]
  keys, number = store(), next(_rounds)
  folder = f'vdm/round/{number}/'
  keys.key_value_set(f'{folder}{jax.process_index()}', text)
  try:
    keys.wait_at_barrier(f'vdm/{number}', int(1000 * _limit[0]))
  except jax.errors.JaxRuntimeError as error:
    came = _numbered(keys.key_value_dir_get(folder))
    missing = sorted(set(range(jax.process_count())) - came.keys())
    raise PeerError(
      f'{_name(missing)} did not come to {what!r} within {_limit[0]:.0f} s: '
      'look at its log and stack, then run the same command again.'
    ) from error
  said = _numbered(keys.key_value_dir_get(folder))
  if jax.process_index() == 0 and number > 1:
    # All have passed the round in between, so all have read this one.
    keys.key_value_delete(f'vdm/round/{number - 2}/')
  return [said[process] for process in range(jax.process_count())]


def all_agree(what: str, passed: bool) -> bool:
  """Whether `passed` is true in every process."""
  return '' not in gather(what, 'yes' if passed else '')


def first_says(what: str, flag: bool) -> bool:
  """The first process's flag, on all: for what only one of them may decide."""
  return gather(what, 'yes' if flag else '')[0] == 'yes'


def is_first() -> bool:
  """Whether this process is the one that writes the run's files."""
  return jax.process_index() == 0


class Vote:
  """Settles at which poll all processes stop, whoever was asked to.

  All processes poll at the same points in the same order, but not at the same
  time. One that is asked to stop says so; each then says which poll is the
  first that it has not passed, and the latest of these is where all stop: no
  process has passed it, and all get there. A process that has not polled yet
  has nothing to lose and says 0; if all do, they leave at once.
  """

  def __init__(self, index: int, count: int, put, get, leave):
    """Begins; see `tick`.

    Args:
      index: of this process.
      count: of processes.
      put: (key, text), makes a message known to all.
      get: folder -> {process: text}, what was put under it.
      leave: ends this process.
    """
    self._index, self._count = index, count
    self._put, self._get, self._leave = put, get, leave
    self._lock = threading.Condition()
    self._asked = self._said = False
    self._polls, self._agreed = 0, None

  def ask(self):
    """Asks all to stop; from any thread."""
    self._asked = True

  def tick(self):
    """Tells and listens; called again and again by one thread."""
    if self._agreed is not None:
      return
    if not self._said:
      if not self._asked and not self._get('vdm/asked/'):
        return
      if self._asked:
        self._put(f'vdm/asked/{self._index}', 'yes')
      with self._lock:
        self._said = True
        first = self._polls + 1 if self._polls else 0
      self._put(f'vdm/stop/{self._index}', str(first))
    said = self._get('vdm/stop/')
    if len(said) < self._count:
      return
    with self._lock:
      self._agreed = max(map(int, said.values()))
      self._lock.notify_all()
    if self._agreed == 0:
      self._leave()

  def poll(self) -> bool:
    """Whether to stop here; the main thread's."""
    with self._lock:
      self._polls += 1
      if not self._said:
        return False
      # The others' numbers are here within a few beats, or `Watch` ends us.
      while self._agreed is None:
        self._lock.wait()
      return self._polls >= self._agreed


class Watch:
  """Beats, and ends this process when another fails or falls silent.

  A context manager; `gather` waits as long as it says from then on.

  Attributes:
    vote: on stopping; None for one process.
  """

  def __init__(self, peer_timeout: float, barrier_timeout: float):
    """Does not begin yet.

    Args:
      peer_timeout: seconds of silence after which a process is given up.
      barrier_timeout: seconds to wait for one that is alive.
    """
    _limit[0] = barrier_timeout
    self._timeout, self._closed = peer_timeout, threading.Event()
    self._index, self._count = jax.process_index(), jax.process_count()
    self._heard, self._thread, self.vote = {}, None, None
    if self._count > 1:
      self._keys = store()
      self.vote = Vote(
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
      gather('leaving')
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
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._put(f'{_ALIVE}{self._index}', _FAILED + text)

  def _put(self, key: str, text: str):
    self._keys.key_value_set(key, text, allow_overwrite=True)

  def _get(self, folder: str) -> dict[int, str]:
    return _numbered(self._keys.key_value_dir_get(folder))

  def _work(self):
    began = time.monotonic()
    self._heard = dict.fromkeys(range(self._count), ('', began))
    for beat in itertools.count():
      try:
        self._put(f'{_ALIVE}{self._index}', str(beat))
        self._listen(self._get(_ALIVE), time.monotonic())
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
        self._give_up(f'{_name([process])} {text}')
      if text != self._heard[process][0]:
        self._heard[process] = text, now
    # Without the store nobody is heard; it is the first process that is gone.
    others = [0] if problem else set(self._heard) - {self._index}
    silent = [
      p for p in sorted(others) if now - self._heard[p][1] > self._timeout
    ]
    if silent:
      self._give_up(
        f'{_name(silent)} has not been heard of for {self._timeout:.0f} s'
        + (f' ({" ".join(problem.split())[:200]})' if problem else '')
      )

  def _give_up(self, why: str):
    if not self._closed.is_set():
      logging.error(
        '%s. This process stops too: run the same command again.', why
      )
      leave(STOPPED)

  def _stop_at_once(self):
    logging.warning('Stopped before the first step: nothing is lost.')
    leave(STOPPED)


def leave(code: int):
  """Ends the process from any thread, without waiting for anyone."""
  logging.flush()
  os._exit(code)


def _numbered(pairs) -> dict[int, str]:
  """{process: text} of the store's [(path, text)]."""
  return {int(key.rpartition('/')[2]): text for key, text in pairs}


def _name(processes) -> str:
  """'Process 1 of 2', for a person."""
  numbers = ', '.join(map(str, processes))
  return f'Process {numbers} of {jax.process_count()}'
