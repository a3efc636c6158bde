"""What all stages of a run share while it trains."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath
import jax
from ml_collections import ConfigDict

from vdm.checkpoints import manager
from vdm.common import vocabulary
from vdm.multihost import preemption
from vdm.training import counters
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import stages
from vdm.training import writer


class Run(NamedTuple):
  """A run that trains."""

  config: ConfigDict
  workdir: epath.Path
  sources: dict[str, Any]  # Clips of 'train' and of 'validation'.
  mesh: jax.sharding.Mesh
  objectives: dict[str, objectives.Objective]  # By the name of the stage.
  store: manager.Checkpoints
  best: manager.Checkpoints | None  # Of the step with the lowest score.
  log: writer.Writer
  signal: preemption.StopSignal
  texts: vocabulary.Reader | None  # Reads captions, if the run does.
  counters: counters.Counters
  command: Sequence[str]
  stop_at: int | None

  def judged_source(self) -> Any:
    """Returns the data set of the clips that results are compared with."""
    fixed = self.config.data.fixed_clips
    return self.sources['train' if fixed else 'validation']

  def statistics_clips(self, span: stages.Span) -> dict[str, Any]:
    """Returns the clips that parameters and statistics are fitted to."""
    num = self.config.autoencoder.statistics_clips
    return inputs.load_eval_clips(self.config, self.sources['train'], span, num)
