"""What destinations have in common, and the thread that each one writes on.

Importing a library, opening a run and sending rows may take seconds to
minutes. Calls go through a queue to a thread, and the training loop waits for
it only where a checkpoint asks for what was written, as it does of TensorBoard.
A destination that cannot be opened is dropped, and a call that fails is
left out, with one warning; the run continues, and `metrics.jsonl` has the
numbers.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import os
import queue
import tempfile
import threading
from typing import Any, NamedTuple, Protocol

from absl import logging
from etils import epath

from vdm.common import buckets


class Preview(NamedTuple):
  """Videos of one step.

  Attributes:
    gif: contents of a GIF file.
    path: an mp4 file (H.264, yuv420p), or a PNG file of single frames.
  """

  gif: bytes
  path: epath.Path


class Destination(Protocol):
  """One place; its methods are called in order, on one thread."""

  def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
    """Adds a row."""

  def write_preview(self, step: int, preview: Preview) -> None:
    """Adds videos."""

  def write_final(
    self, step: int, scores: Mapping[str, float], video: epath.Path
  ) -> None:
    """Adds the run's last numbers and videos."""

  def flush(self) -> None:
    """Brings what was written to its place; where `Background.flush` waits."""

  def close(self, code: int) -> None:
    """Ends it; `code` is the exit code of the command."""


class Background:
  """Calls a destination on a thread."""

  def __init__(
    self,
    title: str,
    make: Callable[[], Destination],
    *,
    wait: float | None = None,
  ):
    """Starts a thread, which does nothing before the first call.

    Args:
      title: of the destination, for messages.
      make: returns it; called on the thread, before the first call.
      wait: seconds that `close` waits at most, and `flush` does not wait at
        all; None: both wait until everything is written.
    """
    self._title, self._make, self._wait = title, make, wait
    self._destination: Destination | None = None
    self._failed = self._warned = False  # To be opened; of any failure.
    self._queue = queue.SimpleQueue()
    # A daemon: one that hangs must not keep the command from ending.
    self._thread = threading.Thread(target=self._run, name=title, daemon=True)
    self._thread.start()

  def call(self, method: str, *args: Any) -> None:
    """Calls a method of the destination after the calls before."""
    self._queue.put((method, args))

  def flush(self) -> None:
    """Returns when the calls so far are done, if it waits for them at all."""
    if self._wait is None:
      done = threading.Event()
      self._queue.put(('flush', ()))
      self._queue.put((None, done))
      done.wait()

  def close(self, code: int) -> None:
    """Closes the destination after the calls so far."""
    self._queue.put(('close', (code,)))
    self._thread.join(self._wait)
    if self._thread.is_alive():
      logging.warning(
        '%s has not taken everything within %.0f s.', self._title, self._wait
      )

  def _run(self) -> None:
    method = ''
    while method != 'close':
      method, args = self._queue.get()
      if method is None:
        args.set()
      else:
        self._try(method, args)

  def _try(self, method: str, args: tuple[Any, ...]) -> None:
    try:
      if self._destination is None:
        if self._failed or method in ('flush', 'close'):
          return
        self._failed = True
        self._destination = self._make()
        self._failed = False
      getattr(self._destination, method)(*args)
    except Exception as error:
      if not self._warned:
        logging.warning(
          '%s misses rows of this run, which metrics.jsonl has: %s: %s',
          self._title,
          type(error).__name__,
          error,
        )
      self._warned = True


@contextlib.contextmanager
def local_file(path: epath.Path) -> Iterator[str]:
  """Yields the name of a file on this machine with the contents of `path`."""
  if not buckets.is_remote(path):
    yield os.fspath(path)
    return
  with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, path.name)
    path.copy(copy)
    yield copy
