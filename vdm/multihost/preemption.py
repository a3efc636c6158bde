"""What SIGTERM and SIGINT mean to a run.

The first one asks it to save and stop: at the next poll, at the same one on
every process. Polls are between steps and between the parts of evaluations,
previews and samplings. Before the first poll of a process nothing can be
lost, so it leaves at once: a compilation can take minutes and hears nothing.
The second signal always leaves at once.

Python runs a handler between two bytecodes of the main thread, so never while
that is inside of a compilation. The number of the signal is also written to a
pipe as it comes, and a thread reads it there. (After
`jax.distributed.initialize` jax has a handler for SIGTERM of its own; the one
that was installed last gets the signal, which is this.)
"""

import os
import signal
import threading

from absl import logging

from vdm.multihost import coordination
from vdm.multihost import stop_vote

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
  """A signal broke off what can be done again from the last checkpoint."""


class StopSignal:
  """Listens from its making to `close`; a context manager.

  Made in the main thread, before anything that takes long.
  """

  def __init__(
    self, vote: stop_vote.Vote | None = None, leave=coordination.leave
  ):
    """Takes the signals over.

    Args:
      vote: for several processes, settles where they stop.
      leave: ends the process with an exit code.
    """
    self._vote, self._leave = vote, leave
    self._received, self._polls = 0, 0
    self._lock = threading.Lock()
    self._reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._old_descriptor = signal.set_wakeup_fd(
      self._writer, warn_on_full_buffer=False
    )
    self._old_handlers = {
      number: signal.signal(number, lambda *_: None) for number in NUMBERS
    }
    self._thread = threading.Thread(target=self._listen, daemon=True)
    self._thread.start()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()

  def received(self) -> bool:
    """Whether to save and stop here."""
    with self._lock:
      self._polls += 1
      received = bool(self._received)
    return received if self._vote is None else self._vote.poll()

  def check(self):
    """Raises Stopped where `received` is true."""
    if self.received():
      raise Stopped

  def close(self):
    """Gives the signals back to whoever had them."""
    if self._thread is None:
      return
    for number, handler in self._old_handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._old_descriptor)
    os.close(self._writer)
    self._thread.join()
    os.close(self._reader)
    self._thread = None

  def _listen(self):
    while number := os.read(self._reader, 1):
      if number[0] in NUMBERS:
        self._handle(number[0])

  def _handle(self, number):
    with self._lock:
      self._received += 1
      alone_and_early = self._vote is None and not self._polls
    name = signal.Signals(number).name
    if self._received > 1:
      logging.warning('%s again: leaving at once.', name)
      self._leave(coordination.STOPPED)
    elif alone_and_early:
      logging.warning('%s before the first step: leaving at once.', name)
      self._leave(coordination.STOPPED)
    else:
      logging.warning('%s: saving, then stopping; again: at once.', name)
      if self._vote is not None:
        self._vote.ask()
