"""Counts over processes and restarts, and the limit on skipped steps."""

import numpy as np

from vdm.multihost import coordination
from vdm.training import counters


def test_processes_add_up_and_a_restart_goes_on(monkeypatch):
  found = counters.Counters(max_skipped=10)
  for step in (1, 2, 3):
    found.too_many_skipped(step, np.int32(step > 1))
  # This process has replaced 2 records by step 2, the other one 5.
  monkeypatch.setattr(coordination, 'gather', lambda what, text: [text, '5'])
  meta = found.totals(2, 2)
  assert meta == {'skipped_steps': 1, 'bad_records': 7}
  processes = []
  for first in (True, False):
    monkeypatch.setattr(coordination, 'is_first', lambda first=first: first)
    process = counters.Counters(max_skipped=10)
    process.resume(meta)
    processes.append(process.bad_records)
    assert process.skipped_steps == 1
  assert sum(processes) == 7


class Flag:
  """A number on a device that notes when it is waited for."""

  def __init__(self, value, seen):
    self.value, self.seen = value, seen

  def __array__(self, dtype=None, copy=None):
    self.seen.append(self.value)
    return np.asarray(self.value)


def test_flags_are_fetched_when_they_are_asked_for():
  skips, seen = counters.Counters(3), []
  for step in range(1, 9):
    assert not skips.too_many_skipped(step, Flag(int(step % 4 == 0), seen))
  assert not seen
  assert skips.fetch(4) == 1 and len(seen) == 4
  assert skips.fetch(4) == 1 and len(seen) == 4
  assert skips.fetch(8) == 2 and skips.skipped_steps == 2


def test_too_many_of_the_last_hundred_stop_at_the_next_that_fails():
  skips = counters.Counters(3)

  def add(step, flag):
    stop = skips.too_many_skipped(step, np.int32(flag))
    skips.fetch(step)
    return stop

  # Four in 400 steps are not too many, whenever they come.
  assert not any(add(step, step % 100 == 0) for step in range(1, 401))
  assert [add(step, flag) for step, flag in enumerate([1, 1, 1, 0], 401)] == (
    [False] * 4
  )
  assert not add(405, 0)  # Watched, and finite.
  assert add(406, 1)
