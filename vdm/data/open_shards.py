"""The shards of a cache that a process keeps open, those used last."""

from collections.abc import Callable
import threading
from typing import Any


class OpenShards:
  """Opens shards by number and keeps some; safe to use from several threads."""

  def __init__(self, read: Callable[[int], Any], limit: int):
    """Makes one with nothing open.

    Args:
      read: number of a shard -> its arrays, memory-mapped.
      limit: shards kept open.
    """
    self._read, self._limit = read, limit
    self._open = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._open)

  def get(self, number: int) -> Any:
    """Returns what `read` returned of a shard."""
    with self._lock:
      arrays = self._open.pop(number, None)
      if arrays is None:
        arrays = self._read(number)
      self._open[number] = arrays  # As the one used last.
      if len(self._open) > self._limit:
        del self._open[next(iter(self._open))]
      return arrays
