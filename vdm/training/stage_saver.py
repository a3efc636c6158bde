"""When a stage is saved, and what is written then.

Whole states, from which training resumes; snapshots of averages, where they
are asked for; and what sampling needs of the step with the lowest small score,
a small part of the state, so that a frequent score costs little to keep.
"""

import contextlib
import time
from typing import Any

from etils import epath
import jax
from ml_collections import ConfigDict

from vdm.checkpoints import manager
from vdm.common import trees
from vdm.config import image_model_rules
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.trained import run_folder
from vdm.trained import snapshots
from vdm.training import counters
from vdm.training import stages
from vdm.training import train_state
from vdm.training import writer


def make_best(
  config: ConfigDict, workdir: epath.Path
) -> contextlib.AbstractContextManager[manager.Checkpoints | None]:
  """Returns the store of the step with the lowest score, if one is chosen."""
  if config.score.best == 'none':
    return contextlib.nullcontext()
  return manager.Checkpoints(workdir / run_folder.BEST, by_score=True)


class StageSaver:
  """Saves the state of a stage; the same steps on all processes."""

  def __init__(
    self,
    config: ConfigDict,
    span: stages.Span,
    fingerprint: str,
    store: manager.Checkpoints,
    best: manager.Checkpoints | None,
    totals: counters.Counters,
    log: writer.Writer,
  ):
    """Starts the clock of `save_minutes`.

    Args:
      config: the run's.
      span: the stage.
      fingerprint: of the training data.
      store: of the run's states.
      best: of the step with the lowest score; None: none is chosen by one.
      totals: of the run.
      log: flushed before each save.
    """
    self._config, self._options = config, config.train
    self._snapshots = snapshots.planned(config, span.stage)
    self._span, self._fingerprint = span, fingerprint
    self._store, self._best = store, best
    self._totals, self._log = totals, log
    self._saved_at = time.monotonic()

  def due(self, step: int, *, logged: bool) -> bool:
    """Returns whether a step is saved.

    Args:
      step: global step.
      logged: whether it is logged.
    """
    span, options = self._span, self._options
    late = time.monotonic() - self._saved_at > 60 * options.save_minutes
    if jax.process_count() > 1:
      # Clocks differ between processes: the first one's decides for all, at
      # the steps that are logged.
      late = logged and coordination.first_says('saving by time', late)
    return (
      late or step == span.stop or (step - span.start) % options.save_every == 0
    )

  def check(self) -> None:
    """Raises CheckpointError if something was not saved; waits for nothing."""
    self._store.check()
    if self._best is not None:
      self._best.check()

  def snapshot_due(self, step: int) -> bool:
    """Returns whether the averages of a step are kept for good."""
    return step - self._span.start in self._snapshots

  def snapshot(
    self, workdir: epath.Path, step: int, state: train_state.TrainState
  ) -> None:
    """Writes the averages of a step, on the first process; see `snapshots`."""
    averages = arrays.to_host(state.ema)
    counts = {path: slot.count for path, slot in state.opt_state.items()}
    counts = {k: int(v) for k, v in arrays.to_host(counts).items()}
    if coordination.is_first():
      snapshots.write(workdir, step, averages, counts, self._described())

  def save(
    self,
    step: int,
    state: train_state.TrainState,
    pending_evaluation: bool,
  ) -> None:
    """Starts to write a checkpoint; `check` says if that failed.

    Args:
      step: global step.
      state: at that step.
      pending_evaluation: whether the step's evaluation is still to be made.
    """
    self._log.flush()
    meta = {
      **self._described(),
      'pending_evaluation': pending_evaluation,
      **self._totals.totals(step, self._totals.bad_records),
      **self._totals.spent.values(),
    }
    self._store.save(step, state._asdict(), meta)
    self._saved_at = time.monotonic()

  def save_best(
    self, step: int, state: train_state.TrainState, scores: dict[str, float]
  ) -> None:
    """Starts to write what sampling needs, if no score was lower.

    Args:
      step: global step.
      state: at that step.
      scores: {name: number} of the step's small score, if any.
    """
    name = f'small_score/{self._config.score.best}'
    if self._best is None or name not in scores:
      return
    score = {'measure': f'{self._span.name}/{name}', 'value': scores[name]}
    if not self._best.improves(score):
      return
    items = {'ema': state.ema}
    params = trees.flatten(state.params)
    if constant := image_model_rules.constant(self._config, params):
      items['params'] = trees.unflatten(constant)  # They have no averages.
    self._best.save(step, items, self._described() | {'score': score})

  def _described(self) -> dict[str, Any]:
    return {
      'stage': self._span.name,
      'objective': self._span.stage.objective,
      'dataset': self._fingerprint,
    }
