"""What training has cost so far, over all stages and restarts.

A row of the log and a checkpoint have `train_seconds`, `train_tflop` and
`train_clips`, so that runs can be compared at equal cost. Seconds are those of
training steps, waiting for data included; compiling, evaluating, saving and
starting again do not count. A step that was made again after a kill counts
once, as the log and the checkpoint are rewound together.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

NAMES = ('train_seconds', 'train_tflop', 'train_clips')


@dataclasses.dataclass
class Spent:
  """Sums over the steps of a run.

  Attributes:
    seconds: of training steps, on this process.
    tflop: 10^12 operations, over all devices.
    clips: that the steps were given, over all processes.
  """

  seconds: float = 0.0
  tflop: float = 0.0
  clips: float = 0.0

  def values(self) -> dict[str, float]:
    """Returns the sums by the names that they are logged under."""
    return dict(zip(NAMES, dataclasses.astuple(self)))

  def resume(
    self, meta: Mapping[str, Any], rows: Callable[[], list[dict[str, Any]]]
  ) -> None:
    """Continues from what a checkpoint recorded.

    Args:
      meta: of the checkpoint.
      rows: () -> rows of the log up to it, for a run of before the sums were
        recorded.
    """
    if NAMES[0] not in meta:
      meta = {name: found[-1] for name, found in totals(rows()).items()}
    self.seconds, self.tflop, self.clips = (float(meta[k]) for k in NAMES)


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  """Returns {name: the sum at each row} for all of `NAMES`.

  Rows of before the sums were recorded have rates, which are means over the
  steps since the row before. Rows of evaluations have neither: theirs is
  interpolated between the rows of training steps around them.

  Args:
    rows: of the log of a run, in order.

  Returns:
    Arrays [len(rows)], or of one 0 if there are no rows.
  """
  steps, sums, last = [0.0], [[0.0, 0.0, 0.0]], 0
  for row in rows:
    if 'seconds_per_step' not in row:
      continue
    if NAMES[0] in row:
      now = [row[name] for name in NAMES]
    else:
      seconds = max(row['step'] - last, 0) * row['seconds_per_step']
      rates = row['tflops_per_second'], row['clips_per_second']
      now = [seconds, *(seconds * rate for rate in rates)]
      now = [a + b for a, b in zip(sums[-1], now)]
    last = row['step']
    steps.append(float(last))
    sums.append(now)
  at = [row['step'] for row in rows] or [0]
  return {
    name: np.interp(at, steps, column)
    for name, column in zip(NAMES, np.array(sums, float).T)
  }
