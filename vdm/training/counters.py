"""What a run counts over its stages and restarts: failures, and its cost."""

import collections
from typing import Any

import jax

from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.training import spent

WINDOW = 100  # Steps that `train.max_skipped` applies to.


class Counters:
  """Counts skipped steps, replaced records and what training costs.

  Attributes:
    skipped_steps: of the run, as far as they were fetched.
    bad_records: records that were replaced in this process's rows; the first
      process includes those from before the run was resumed.
    spent: what training has cost, see `spent`.
  """

  def __init__(self, max_skipped: int):
    """Starts at zero.

    Args:
      max_skipped: more skipped ones of the last `WINDOW` steps are too many.
    """
    self.skipped_steps, self.bad_records = 0, 0
    self.spent = spent.Spent()
    self._max_skipped = max_skipped
    self._recent = collections.deque(maxlen=WINDOW)
    self._pending = collections.deque()

  def resume(self, meta: dict[str, Any]) -> None:
    """Continues from what a checkpoint recorded."""
    self.skipped_steps = meta.get('skipped_steps', 0)
    if coordination.is_first():
      self.bad_records = meta.get('bad_records', 0)

  def too_many_skipped(self, step: int, flag: jax.Array) -> bool:
    """Adds a step; returns whether it and too many before it were skipped.

    Only while there are too many is the step waited for: the device is not
    kept waiting otherwise. The answer is the same on all processes.

    Args:
      step: its number.
      flag: 1 if the step was skipped.
    """
    watched = sum(self._recent) > self._max_skipped
    self._pending.append((step, flag))
    if not watched:
      return False
    self.fetch(step)
    return bool(self._recent[-1]) and sum(self._recent) > self._max_skipped

  def totals(self, step: int, bad_records: int) -> dict[str, int]:
    """Returns the run's numbers up to a step, over all processes.

    Args:
      step: which is waited for.
      bad_records: this process's up to it.
    """
    self.fetch(step)
    counts = coordination.gather('counting bad records', str(bad_records))
    return {
      'skipped_steps': self.skipped_steps,
      'bad_records': sum(map(int, counts)),
    }

  def fetch(self, step: int) -> int:
    """Waits for a step, and returns how many were skipped up to it."""
    due = []
    while self._pending and self._pending[0][0] <= step:
      due.append(self._pending.popleft()[1])
    flags = [int(x) for x in arrays.to_host(due)]
    self._recent.extend(flags)
    self.skipped_steps += sum(flags)
    return self.skipped_steps
