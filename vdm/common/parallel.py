"""A map over threads that keeps the order of its items.

Decoding and encoding release the interpreter's lock, so threads are enough to
keep the processors busy. The output does not depend on their number.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import os
from typing import TypeVar

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
    ahead: results per thread that may be pending, which bounds the memory.
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


def num_processors() -> int:
  """Returns how many processors this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
