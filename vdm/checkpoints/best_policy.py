"""Keeps the checkpoint with the lowest score, and no other.

A step that is scored carries {'score': {'measure': name, 'value': number}} in
its meta. Lower is better, and only values of one measure are compared: that of
the newest scored step. No file says which step is the best: it is a function of
the steps on disk. Orbax's own `BestN` cannot express this: it ranks each step
by the step's own metrics, without knowing which measure is the newest.
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any


class Best:
  """Orbax's preservation policy for the best of the scored steps.

  Attributes:
    scores: {step: score, or None if it has none}.
  """

  def __init__(self):
    self.scores = {}

  def note(self, step: int, meta: Mapping[str, Any]) -> None:
    """Records the score of a step, or that its meta has none."""
    self.scores[step] = meta.get('score')

  def step(self, steps: Iterable[int]) -> int | None:
    """Returns the best of the steps, the later of two equal; None: unscored."""
    scored = {s: self.scores[s] for s in sorted(steps) if self.scores.get(s)}
    if not scored:
      return None
    measure = scored[max(scored)]['measure']
    values = {
      s: x['value'] for s, x in scored.items() if x['measure'] == measure
    }
    return min(values, key=lambda step: (values[step], -step))

  def improves(self, steps: Iterable[int], score: Mapping[str, Any]) -> bool:
    """Returns whether a new step with a score would be the best one.

    Args:
      steps: those on disk.
      score: of the new step; one that is no number never is.
    """
    if not math.isfinite(score['value']):
      return False
    best = self.scores.get(self.step(steps))
    if best is None or best['measure'] != score['measure']:
      return True
    return score['value'] <= best['value']

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Tells Orbax which steps to keep."""
    del context
    best = self.step(checkpoint.step for checkpoint in checkpoints)
    return [checkpoint.step == best for checkpoint in checkpoints]
