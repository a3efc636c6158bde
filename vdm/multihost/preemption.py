"""SIGTERM, SIGINT, SIGUSR1: all processes save and stop at the same poll.

Polls lie between steps and between the parts of evaluations, previews and
sampling. The first signal, to any process, asks the run to save and stop at the
next poll. Before the first poll of a process nothing can be lost, so it exits
at once: a compilation can take minutes, during which nothing is polled. A later
signal is acknowledged at once, and the log says what the run waits for.

A second SIGTERM or SIGINT exits at once. SIGUSR1 is what Slurm sends some time
before the end (`--signal=USR1@120`). The SIGTERM that Slurm sends at the end is
then the first: it does not interrupt a checkpoint that is being written.

Python runs a signal handler between two bytecodes of the main thread, so never
inside a compilation. The number of the signal is also written to a pipe when it
arrives, and a thread reads it there. (After `jax.distributed.initialize` jax
has a handler for SIGTERM of its own; the handler installed last gets the
signal, which is this one.) jax's own agreement on a step to save at,
`multihost_utils.reached_preemption_sync_point`, answers to SIGTERM only, and
cannot tell that no process has polled yet.
"""

from collections.abc import Callable, Iterable
import contextlib
import os
import select
import signal
import threading

from absl import logging

from vdm.multihost import coordination
from vdm.multihost import main_thread

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
REMINDER_SECONDS = 30.0  # Between two lines of the log while a run stops.


class Stopped(Exception):
  """A signal interrupted work that can be redone from the last checkpoint."""


class Vote:
  """Decides at which poll all processes stop, whichever was asked to.

  All processes poll at the same points in the same order, but not at the same
  time. One that is asked to stop says so; each then says which poll is the
  first that it has not passed, and the latest of these is where all stop: no
  process has passed it, and all reach it. A process that has not polled yet has
  nothing to lose and says 0; if all do, they exit at once.

  Attributes:
    polls: how often this process has polled.
  """

  def __init__(
    self,
    index: int,
    count: int,
    leave: Callable[[int], None] = coordination.leave,
  ):
    """Starts without a request to stop.

    Args:
      index: of this process.
      count: number of processes. With several, one thread calls `tick`
        regularly.
      leave: ends this process with an exit code.
    """
    self._index, self._count, self._leave = index, count, leave
    self._lock = threading.Condition()
    self._asked = self._answered = False
    self.polls, self._agreed = 0, None

  def ask(self) -> None:
    """Asks all processes to stop; called from any thread."""
    self._asked = True
    if self._count == 1:
      self._agree([self._first_open_poll()])

  def tick(self) -> None:
    """Exchanges messages with the other processes."""
    if self._agreed is not None:
      return
    if not self._answered:
      if self._asked:
        coordination.write(f'vdm/asked/{self._index}', 'yes')
      elif not (asked := coordination.read('vdm/asked/')):
        return
      else:
        logging.warning(
          'Process %s was asked to stop: all save and stop at the same step.',
          ', '.join(map(str, sorted(asked))),
        )
      answer = str(self._first_open_poll())
      coordination.write(f'vdm/stop/{self._index}', answer)
    answers = coordination.read('vdm/stop/')
    if len(answers) == self._count:
      self._agree(map(int, answers.values()))

  def poll(self) -> bool:
    """Returns whether to stop here; called by the main thread only."""
    with self._lock:
      self.polls += 1
      if not self._answered:
        return False
      # The other answers arrive within a few beats, or `Heartbeat` ends us.
      while self._agreed is None:
        self._lock.wait()
      return self.polls >= self._agreed

  def _first_open_poll(self) -> int:
    """Returns the first poll not passed, 0 before any; later polls wait."""
    with self._lock:
      self._answered = True
      return self.polls + 1 if self.polls else 0

  def _agree(self, answers: Iterable[int]) -> None:
    with self._lock:
      self._agreed = max(answers)
      ahead = self._agreed - self.polls
      self._lock.notify_all()
    if ahead > 1:
      logging.info('All processes stop %d steps or parts from here.', ahead)
    if self._agreed == 0:
      logging.warning('Stopped before the first step: nothing is lost.')
      self._leave(coordination.STOPPED)


class StopSignal(contextlib.AbstractContextManager):
  """Listens for signals until `close`.

  Created in the main thread, before anything that takes long.
  """

  def __init__(
    self,
    vote: Vote | None = None,
    leave: Callable[[int], None] = coordination.leave,
  ):
    """Installs the signal handlers.

    Args:
      vote: decides where several processes stop; None for one process.
      leave: ends the process with an exit code.
    """
    self._vote, self._leave = vote or Vote(0, 1, leave), leave
    self._asked, self._urgent = False, 0
    self._several = vote is not None
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=self._listen, args=[reader], daemon=True)
    thread.start()
    old_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    self._undo = contextlib.ExitStack()  # The last one first.
    self._undo.callback(os.close, reader)
    self._undo.callback(thread.join)
    self._undo.callback(os.close, writer)
    self._undo.callback(signal.set_wakeup_fd, old_writer)
    for number in NUMBERS:
      old_handler = signal.signal(number, lambda *_: None)
      self._undo.callback(signal.signal, number, old_handler)

  def __exit__(self, *error):
    self.close()

  def received(self) -> bool:
    """Returns whether to save and stop here."""
    return self._vote.poll()

  def check(self) -> None:
    """Raises Stopped where `received` is true."""
    if self.received():
      raise Stopped

  def close(self) -> None:
    """Restores the signal handlers that were installed before."""
    self._undo.close()

  def _listen(self, reader: int):
    while True:
      wait = REMINDER_SECONDS if self._asked else None
      if not select.select([reader], [], [], wait)[0]:
        logging.warning('Still stopping, after %s.', main_thread.place())
      elif not (number := os.read(reader, 1)):
        return
      elif number[0] in NUMBERS:
        self._handle(signal.Signals(number[0]))

  def _handle(self, number: signal.Signals):
    self._urgent += number != signal.SIGUSR1
    if self._urgent > 1:
      logging.warning('%s again: exiting at once.', number.name)
      self._leave(coordination.STOPPED)
      return
    logging.warning(
      '%s: stopping at the next step%s, after what runs now in %s. SIGTERM or '
      'Ctrl-C%s: at once.',
      number.name,
      ' that all processes reach' if self._several else '',
      main_thread.place(),
      ' again' if self._urgent else ' twice',
    )
    if not self._asked:
      self._vote.ask()
      self._asked = True
