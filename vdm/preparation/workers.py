"""Worker processes with limits, in which a crash or a hang costs one item.

Decoders are native code that is given files from anywhere. Each item is
processed in a process with a limit on its memory and its time; one that
crashes, hangs or exceeds a limit is replaced, and its item fails with a reason.
The results do not depend on the number of processes.

Worker processes import this module: neither jax nor TensorFlow here.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from typing import Any

from absl import logging

try:
  import resource
except ImportError:  # Windows: no limit on memory.
  resource = None

LIMIT_REASONS = ('timeout', 'memory', 'crashed')
_POLL_SECONDS = 0.2
_START_SECONDS = 120  # A busy machine may need so long to start a process.

# What `run` is once workers and limits are bound: called with a function and
# tasks, it yields (number of the task, outcome).
Runner = Callable[..., Iterator[tuple[int, Any]]]


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a process may use.

  Attributes:
    seconds: for one item.
    stall_seconds: without a heartbeat, see `run`.
    memory_mb: beyond what it has when it starts; 0: no limit.
  """

  seconds: float
  stall_seconds: float
  memory_mb: int


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why an item has no result.

  Attributes:
    reason: 'timeout' | 'memory' | 'crashed' | 'failed' (an exception).
    message: a sentence.
  """

  reason: str
  message: str


def failure(error: Exception) -> Failure:
  """Returns the failure that describes an unexpected exception."""
  text = f'{type(error).__name__}: {error}'.splitlines()[0][:300]
  # OpenCV has an error of its own for allocations that fail.
  reason = 'memory' if 'nsufficient memory' in text else 'failed'
  return Failure(reason, text)


def run(
  function: Callable[[Any, Callable[[], None]], Any],
  items: Sequence[Any],
  *,
  workers: int,
  limits: Limits,
) -> Iterator[tuple[int, Any]]:
  """Yields (number of the item, result or Failure), as they are done.

  Args:
    function: called as `function(item, heartbeat)` in another process, so it
      and the items are pickled; it calls `heartbeat()` at least every
      `stall_seconds`.
    items: arguments, started in this order.
    workers: number of processes.
    limits: of each.
  """
  waiting = collections.deque(enumerate(items))
  pool = [None] * max(1, min(workers, len(items)))
  try:
    while waiting or any(w and w.busy for w in pool):
      for place, worker in enumerate(pool):
        if waiting and (worker is None or not worker.busy):
          pool[place] = worker or _Worker(function, limits)
          pool[place].submit(*waiting.popleft())
      busy = [worker for worker in pool if worker and worker.busy]
      multiprocessing.connection.wait(
        [w.pipe for w in busy] + [w.process.sentinel for w in busy],
        timeout=_POLL_SECONDS,
      )
      for place, worker in enumerate(pool):
        outcome = worker.poll() if worker and worker.busy else None
        if outcome is None:
          continue
        if not worker.usable:
          worker.stop()
          pool[place] = None
        yield outcome
  finally:
    for worker in pool:
      if worker:
        worker.stop()


class _Worker:
  """One process, as its parent sees it."""

  def __init__(self, function, limits: Limits):
    context = multiprocessing.get_context('spawn')
    self._limits = limits
    # When the process last called `heartbeat`, and when it was ready to work.
    self._heartbeat = context.RawValue('d', time.monotonic() + _START_SECONDS)
    self._ready = context.RawValue('d', self._heartbeat.value)
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(
      target=_serve,
      args=(
        function,
        theirs,
        self._heartbeat,
        self._ready,
        limits.memory_mb,
        os.getpid(),
      ),
      daemon=True,
    )
    self.process.start()
    theirs.close()
    self.busy, self.usable = False, True

  def submit(self, number: int, item):
    self._number, self.busy = number, True
    self._submitted = time.monotonic()
    # Until it has started, its heartbeat lies in the future.
    if self._heartbeat.value < self._submitted:
      self._heartbeat.value = self._submitted
    with contextlib.suppress(OSError):  # It died while idle: `poll` says so.
      self.pipe.send(item)

  def poll(self) -> tuple[int, Any] | None:
    """Returns (number, outcome) once there is one."""
    outcome = self._outcome()
    if outcome is None:
      return None
    self.busy = False
    return self._number, outcome

  def _outcome(self):
    try:
      if self.pipe.poll():
        return self.pipe.recv()
    except (EOFError, OSError):
      self.process.join(5)
    if not self.process.is_alive():
      self.usable = False
      code = self.process.exitcode
      name = signal.Signals(-code).name if (code or 0) < 0 else f'code {code}'
      return Failure('crashed', f'the decoding process ended with {name}')
    now, limits = time.monotonic(), self._limits
    if now - max(self._submitted, self._ready.value) > limits.seconds:
      message = f'it took more than {limits.seconds:g} s'
    elif now - self._heartbeat.value > limits.stall_seconds:
      message = f'nothing came for {limits.stall_seconds:g} s'
    else:
      return None
    self.usable = False
    return Failure('timeout', message)

  def stop(self):
    if self.busy or not self.usable:
      self.process.kill()
    self.pipe.close()  # An idle one ends by itself.
    self.process.join(5)
    if self.process.is_alive():
      self.process.kill()
      self.process.join()


def _serve(function, pipe, last_heartbeat, ready, memory_mb: int, parent: int):
  """Processes what comes through the pipe until it is closed."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides.
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
  import cv2

  cv2.setNumThreads(1)  # One processor per process.
  _limit_memory(memory_mb)

  def heartbeat():
    last_heartbeat.value = time.monotonic()

  ready.value = last_heartbeat.value = time.monotonic()
  while True:
    try:
      item = pipe.recv()
    except (EOFError, OSError):
      return
    try:
      outcome = function(item, heartbeat)
    except MemoryError:
      outcome = Failure('memory', f'it needs more than {memory_mb} MB')
    except Exception as error:
      logging.exception('Processing %s', item)
      outcome = failure(error)
    pipe.send(outcome)


def _end_with(parent: int):
  """Ends this process when the one that started it has ended."""
  while os.getppid() == parent:
    time.sleep(0.5)
  os._exit(1)


def _limit_memory(memory_mb: int):
  if not memory_mb or resource is None:
    return
  try:
    with open('/proc/self/statm') as file:
      now = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (memory_mb << 20), hard))
  except (OSError, ValueError):
    logging.warning('The memory of decoding processes cannot be limited here.')
