"""Keeps the checkpoint with the least score, beside the latest ones.

A step that is scored carries {'score': {'measure': name, 'value': number}} in
its meta. Lower is better, and only values of one measure are compared: that of
the newest scored step. No file says which step is the best: it is a function of
the steps that are there.
"""

from collections.abc import Iterable


class Best:
  """Orbax's preservation policy for the best of the scored steps.

  Attributes:
    scores: {step: score}, of steps that have one.
  """

  def __init__(self):
    self.scores = {}

  def note(self, step: int, meta: dict) -> None:
    """Remembers the score of a step, if its meta has one."""
    if meta.get('score'):
      self.scores[step] = meta['score']
    else:
      self.scores.pop(step, None)

  def step(self, steps: Iterable[int]) -> int | None:
    """Returns the best of the steps, the later one of two; None: unscored."""
    scored = sorted(step for step in steps if step in self.scores)
    if not scored:
      return None
    measure = self.scores[scored[-1]]['measure']
    return min(
      (step for step in scored if self.scores[step]['measure'] == measure),
      key=lambda step: (self.scores[step]['value'], -step),
    )

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Tells Orbax which steps to keep."""
    del context
    best = self.step(checkpoint.step for checkpoint in checkpoints)
    return [checkpoint.step == best for checkpoint in checkpoints]
