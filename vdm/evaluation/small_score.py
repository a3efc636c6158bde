"""A cheap score during training: few samples against few held-out clips."""

from collections.abc import Callable
import json
from typing import Any

from absl import logging
from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm.metrics import motion
from vdm.metrics import suite
from vdm.multihost import coordination
from vdm.training import objectives

LEAST_CLIPS = 4


class SmallScore:
  """Energy distances of the suite in percent, and the ratio of mean flows.

  For so few clips these numbers only say whether a run improves. No published
  number is computed this way, and none shares their names.
  """

  def __init__(
    self,
    make: Callable[..., ui8['n t h w 3']],
    clips: dict[str, np.ndarray],
    more: Callable[..., dict[str, float]] | None = None,
  ):
    """Stores how to generate samples and what to compare them with.

    Args:
      make: (params, frozen, clips) -> videos, one per clip.
      clips: 'video' and 'label' of held-out clips.
      more: (params, frozen, clips) -> other scores of the model by their
        names, the same names on every process; None: no others.
    """
    self._make, self._clips, self._reference = make, clips, None
    self._more = more

  def __call__(
    self, params: dict[str, Any], frozen: dict[str, Any]
  ) -> dict[str, float]:
    """Returns {'small_score/...': number}, the same on every process."""
    samples = self._make(params, frozen, self._clips)
    codec, _ = objectives.apart(frozen)
    more = self._more(params, codec, self._clips) if self._more else {}
    names = [
      f'small_score/{name}' for name in (*suite.SUMMARY, 'flow_ratio', *more)
    ]
    values = []
    if coordination.is_first():
      if self._reference is None:
        self._reference = suite.measure(self._clips['video'])
      measured = suite.measure(samples)
      rows = suite.summarise(self._reference, measured)
      flows = [np.mean(m.panel['flow']) for m in (measured, self._reference)]
      values = [100 * rows[name]['energy'] for name in suite.SUMMARY]
      values.append(float(flows[0] / max(flows[1], 1e-6)))
      values += more.values()
    # As text, which restores every digit of a float.
    said = coordination.gather('the small score', json.dumps(values))
    return dict(zip(names, json.loads(said[0]), strict=True))


def make_small_score(
  score: ConfigDict,
  stage: ConfigDict,
  objective: objectives.Objective,
  clips: Callable[..., dict[str, np.ndarray]],
  more: Callable[..., dict[str, float]] | None = None,
) -> SmallScore | None:
  """Returns the score of a stage's samples; None where there is none.

  Args:
    score: `config.score`.
    stage: config of the stage.
    objective: whose samples are scored.
    clips: () -> 'video' and 'label' of held-out clips.
    more: see `SmallScore`.
  """
  if not score.every or objective.samples is None:
    return None
  if stage.frames < motion.LEAST_FRAMES:
    return None
  held_out = clips()
  if len(held_out['video']) < LEAST_CLIPS:
    logging.info('No small score: it takes %d held-out clips.', LEAST_CLIPS)
    return None
  return SmallScore(objective.samples, held_out, more)
