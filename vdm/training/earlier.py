"""The average of a stage's early steps that its samples are guided against.

It is read from the run's snapshots, so that a run that resumes makes the same
videos.
"""

from collections.abc import Callable
import functools

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict

from vdm import generate
from vdm.common import trees
from vdm.config import sampling
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.trained import snapshots
from vdm.training import stages


def reader(
  config: ConfigDict,
  span: stages.Span,
  mesh: jax.sharding.Mesh,
  workdir: epath.Path,
  step: int,
) -> Callable[..., generate.Average | None]:
  """Returns what the samples of a global step are guided against.

  Args:
    config: the run's, whose `sample.autoguide` says of which updates.
    span: the stage.
    mesh: of the devices.
    workdir: the run's folder.
    step: global step that the stage is at.

  Returns:
    (step, params) -> the average; None up to its step, and where samples are
    guided by conditions. `params` are those of the step. Called by all
    processes at the same steps.

  Raises:
    FileNotFoundError: the step is later, and its snapshot is missing.
  """
  config = sampling.of_stage(config, span.stage)
  early = sampling.earlier_step(config, span.name)

  @functools.cache
  def read():
    coordination.gather('the snapshot')  # The first process writes it.
    average = snapshots.average_of(workdir, config.sample.ema, early)
    logging.info('Samples are guided against step %d.', early)
    return arrays.replicate(mesh, average)

  if early and step > early:
    read()
  found = generate.Average(config, {}, early, str(workdir))

  def at(step, params):
    if not early or step <= early:
      return None
    # What no stage trains has no average, and lives as long as its state.
    average, flat = read(), trees.flatten(params)
    found.params = trees.unflatten(
      {path: average.get(path, x) for path, x in flat.items()}
    )
    return found

  return at
