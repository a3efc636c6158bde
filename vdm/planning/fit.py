"""Whether a stage fits a target, with which batch, and what would make it fit.

Peak memory of one device is affine in its rows of the batch. With a compiler
for the target, two small batches are compiled and the line through them is
taken to the batch of the configuration; without one, the line is estimated
(`costs`).
"""

from collections.abc import Callable, Iterator
import itertools
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from vdm.planning import compiling
from vdm.planning import costs
from vdm.planning import targets

ROWS = (4, 8)  # Rows of one device in the batches that are compiled.


class Line(NamedTuple):
  """Peak memory of one device: fixed + row * rows, bytes.

  Attributes:
    fixed: without any row.
    row: of each.
    source: 'compiled', 'extrapolated' from smaller batches, or 'estimated'.
    why: why it was not compiled, if a compiler is installed.
    seconds: that compiling took.
  """

  fixed: float
  row: float
  source: str
  why: str = ''
  seconds: float = 0.0

  def peak(self, rows: float) -> float:
    """Returns the bytes for a number of rows."""
    return self.fixed + self.row * rows

  def largest(self, memory: float) -> int:
    """Returns the most rows that fit; 0 if none does."""
    return max(0, int((memory - self.fixed) // self.row))


def changed(config: ConfigDict, stage: str, **values: int) -> ConfigDict:
  """Returns a copy of a configuration with other values in one stage."""
  config = config.copy_and_resolve_references().unlock()
  config.stages[stage].update(values)
  return config


def measure(
  config: ConfigDict,
  stage: str,
  target: targets.Target,
  cost: costs.Cost,
  *,
  seconds: float,
) -> Line:
  """Returns the line of a stage on a target.

  Args:
    config: the run's.
    stage: its name.
    target: the devices.
    cost: of the stage, for what is estimated.
    seconds: for each of two compilations; 0: estimate.
  """
  fsdp = config.train.fsdp
  estimate = Line(
    costs.estimated_peak(cost, 0, fsdp, 1), cost.kept, 'estimated'
  )
  if not seconds or not compiling.is_installed(target.platform):
    return estimate
  options = config.stages[stage]
  # Parts of a batch are compiled as a batch of their own, without a loop.
  rows = options.batch // (options.accumulate * target.devices)
  small, large = (max(1, rows // 2), rows) if 1 < rows <= ROWS[1] else ROWS
  try:
    peaks, spent = [], 0.0
    for n in (small, large):
      one = changed(config, stage, batch=n * target.devices, accumulate=1)
      logging.info('Compiling %s, batch %d, for %s.', stage, n, target.name)
      found = compiling.measure(one, stage, target, seconds=seconds)
      peaks.append(found['peak'])
      spent += found['seconds']
  except compiling.CompileError as error:
    return estimate._replace(why=str(error))
  row = (peaks[1] - peaks[0]) / (large - small)
  if row <= 0:
    return estimate._replace(
      why=f'the compiler needs no more for {large} rows than for {small}'
    )
  source = 'compiled' if rows == large else 'extrapolated'
  return Line(peaks[0] - row * small, row, source, seconds=spent)


def peak(
  config: ConfigDict, stage: str, devices: int, cost: costs.Cost, line: Line
) -> float:
  """Returns the bytes of one device at the configuration's own batch."""
  options = config.stages[stage]
  sums = cost.gradients if options.accumulate > 1 else 0
  return line.peak(options.batch / devices / options.accumulate) + sums


def overrides(
  config: ConfigDict,
  stage: str,
  target: targets.Target,
  cost: costs.Cost,
  line: Line,
  rematerialised: Callable[[], float],
) -> list[str] | None:
  """Returns the fewest changes that make a stage fit; None if none was found.

  Gradient accumulation first, which changes no numbers; then rematerialising,
  then sharding the state. They are checked against the line: a guide, and no
  promise.

  Args:
    config: the run's.
    stage: its name.
    target: the devices.
    cost: of the stage.
    line: of the stage on the target.
    rematerialised: () -> `Cost.kept` with `model.remat=block`.
  """
  rows = config.stages[stage].batch // target.devices
  for remat, fsdp in _options(config, target.devices):
    row = line.row * (rematerialised() / cost.kept if remat else 1.0)
    now = config.train.fsdp
    saved = (cost.state + cost.gradients) * (1 / now - 1 / fsdp)
    saved += costs.gathered(cost, now) - costs.gathered(cost, fsdp)
    for parts in _divisors(rows):
      sums = cost.gradients if parts > 1 else 0
      if line.fixed - saved + row * rows / parts + sums <= target.memory:
        found = []
        if parts != config.stages[stage].accumulate:
          found.append(f'--config.stages.{stage}.accumulate={parts}')
        if remat:
          found.append('--config.model.remat=block')
        if fsdp != config.train.fsdp:
          found.append(f'--config.train.fsdp={fsdp}')
        return found
  return None


def _options(config: ConfigDict, devices: int) -> Iterator[tuple[bool, int]]:
  """Yields (whether to rematerialise, fsdp), the least costly first."""
  sharded = [config.train.fsdp]
  if devices > config.train.fsdp:
    sharded.append(devices)
  remat = [False] if config.model.remat != 'none' else [False, True]
  for fsdp, again in itertools.product(sharded, remat):
    yield again, fsdp


def _divisors(rows: int) -> Iterator[int]:
  """Yields the numbers of parts into which rows can be divided."""
  yield from (n for n in range(1, rows + 1) if rows % n == 0)
