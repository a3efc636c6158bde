"""Rows of the log while a stage trains, each written one step late."""

from collections.abc import Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vdm.common import parallel
from vdm.multihost import arrays
from vdm.training import counters
from vdm.training import stages
from vdm.training import throughput
from vdm.training import writer


class StepLog:
  """Holds each row back until the next step has been dispatched.

  The device then computes while this process waits for the row's values.
  """

  def __init__(
    self,
    spans: Sequence[stages.Span],
    config: ConfigDict,
    rates: throughput.Throughput,
    totals: counters.Counters,
    log: writer.Writer,
  ):
    """Holds no row yet.

    Args:
      spans: of the run, from this stage on.
      config: the run's.
      rates: of the stage.
      totals: of the run.
      log: where rows go.
    """
    self._spans, self._span = spans, spans[0]
    self._every, self._rates = config.train.log_every, rates
    self._config, self._advised = config, False
    self._totals, self._log, self._row = totals, log, None

  def due(self, step: int) -> bool:
    """Returns whether a step is logged: some, the first and the last."""
    n = step - self._span.start
    return step == self._span.stop or n == 1 or n % self._every == 0

  def add(
    self, step: int, metrics: dict[str, Any], cost: dict[str, float]
  ) -> None:
    """Holds back the row of a step.

    Args:
      step: global step.
      metrics: of the train step, perhaps still being computed.
      cost: of what was compiled since the row before, if anything.
    """
    spent = self._totals.spent.values()
    self._row = (step, metrics, cost, self._totals.bad_records, spent)

  def flush(self) -> None:
    """Fetches and writes the row that is held back, if any."""
    if self._row is None:
      return
    (step, metrics, cost, bad_records, spent), self._row = self._row, None
    values = {}
    for name, value in arrays.to_host(metrics).items():
      if not isinstance(value, tuple):
        values[name] = float(value)
      elif value[1] > 0:  # A noise level that no clip had has no loss.
        values[name] = float(value[0] / value[1])
    values |= self._rates.read() | cost
    # Clips and operations up to this step; the next one runs already.
    values |= spent | {'train_seconds': self._totals.spent.seconds}
    values |= self._totals.totals(step, bad_records)
    self._log.write(step, self._span.name, values)
    left = throughput.time_left(self._spans, step, self._rates.pace())
    logging.info('%s', throughput.line(self._span, step, values, left))
    waited = left[0] * values['data_wait_share']
    if waited > throughput.LONG_WAIT and not self._advised:
      self._advised = True
      cacheable = throughput.can_cache(self._config, self._span.stage)
      said = throughput.advice(
        waited, cacheable, self._config.data, parallel.num_processors()
      )
      logging.warning('%s', said)
