"""Threads that keep the order, and progress that suits the terminal.

Decoding and encoding release the interpreter's lock, so threads are enough to
keep the processors busy, and what comes out does not depend on their number.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import os
import sys
import time
from typing import TypeVar

from absl import logging
import tqdm

_LOG_SECONDS = 10.0

T = TypeVar('T')
U = TypeVar('U')


def ordered_map(
  function: Callable[[T], U],
  items: Iterable[T],
  *,
  threads: int | None = None,
  ahead: int = 4,
) -> Iterator[U]:
  """Yields `function(item)` in the order of the items.

  Args:
    function: called in threads.
    items: read by the calling thread, at most `ahead * threads` ahead.
    threads: processors of this process by default.
    ahead: results per thread that may wait, which bounds the memory.
  """
  threads = threads or num_processors()
  with futures.ThreadPoolExecutor(threads) as pool:
    waiting = collections.deque()
    try:
      for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead * threads:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()


def track(
  items: Iterable[T], total: int, description: str, unit: str
) -> Iterator[T]:
  """Yields the items, with a bar on a terminal and log lines elsewhere."""
  if sys.stderr.isatty():
    yield from tqdm.tqdm(items, description, total, unit=f' {unit}')
    return
  begin = last = time.monotonic()
  for done, item in enumerate(items, 1):
    yield item
    now = time.monotonic()
    if now - last >= _LOG_SECONDS or done == total:
      last = now
      rate = done / max(now - begin, 1e-9)
      logging.info(
        '%s: %d of %d %ss, %.1f a second, %.0f s left',
        *(description, done, total, unit, rate, (total - done) / rate),
      )


def num_processors() -> int:
  """Returns how many processors this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
