"""The key-value store of jax's coordination service, in memory."""

import itertools
import threading

import jax

from vdm.multihost import coordination
from vdm.multihost import heartbeat


class Left(BaseException):
  """Stands for the end of the process."""


class Store:
  """The methods that the package uses."""

  def __init__(self):
    self.values, self.lock = {}, threading.Lock()
    self.left = []  # Exit codes.

  def key_value_set(self, key, value, allow_overwrite=False):
    with self.lock:
      assert allow_overwrite or key not in self.values
      self.values[key] = value

  def key_value_dir_get(self, folder):
    with self.lock:
      return [(k, v) for k, v in self.values.items() if k.startswith(folder)]

  def key_value_delete(self, folder):
    with self.lock:
      for key in [k for k in self.values if k.startswith(folder)]:
        del self.values[key]


def pretend_three(monkeypatch):
  """Makes this process the first of three; returns their store."""
  store = Store()
  monkeypatch.setattr(coordination, 'store', lambda: store)
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  monkeypatch.setattr(coordination, '_rounds', itertools.count())
  monkeypatch.setattr(heartbeat, 'PERIOD', 0.02)

  def leave(code):
    store.left.append(code)
    raise Left(code)

  monkeypatch.setattr(coordination, 'leave', leave)
  return store
