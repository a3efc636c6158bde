"""Throughput, memory and the one line that says how a run is doing."""

from collections.abc import Callable, Mapping, Sequence
import math
import resource
import sys
import time
from typing import TypeVar

import jax
from ml_collections import ConfigDict

from vdm.common import errors
from vdm.common import sizes
from vdm.config import check
from vdm.training import flops
from vdm.training import spent
from vdm.training import stages

T = TypeVar('T')

SHOWN_WAIT = 0.01  # Share of the time waited for data that a line shows.
LONG_WAIT = 60.0  # Seconds of it in the rest of a stage that are worth advice.


class Throughput:
  """Counts what happens between two rows of the log."""

  def __init__(self, clips: int, dtype: str, total: spent.Spent | None = None):
    """Starts the first interval.

    Args:
      clips: of a step, over all devices.
      dtype: that the network computes in, for the devices' peak.
      total: sums of the run, which steps are added to.
    """
    self.clips, self.dtype = clips, dtype
    self.total, self._stepped = total or spent.Spent(), False
    self._run_started, self._run_steps = time.perf_counter(), 0
    self.restart()

  def restart(self) -> None:
    """Starts a new interval."""
    self.started, self.waited = time.perf_counter(), 0.0
    self._settled = self.started
    self.steps, self.tflops = 0, 0.0

  def wait(self, function: Callable[[], T]) -> T:
    """Calls what returns the next batch, and counts its time as waiting."""
    started = time.perf_counter()
    result = function()
    self.waited += time.perf_counter() - started
    return result

  def settle(self, lost: float = 0.0) -> None:
    """Adds the time since the last call to the run's.

    What follows an interval and is not training, up to `restart`, is not added.

    Args:
      lost: seconds of it that were not training either.
    """
    now = time.perf_counter()
    self.total.seconds += max(now - self._settled - lost, 0.0)
    self._settled = now

  def count(self, tflops: float, *, compile_seconds: float = 0.0) -> None:
    """Counts a step; one that had to be compiled starts a new interval."""
    self.total.tflop += tflops
    self.total.clips += self.clips
    if compile_seconds:
      # Before the first step, workers and pipelines start.
      if self._stepped:
        self.settle(compile_seconds)
      self.restart()
      self._run_started, self._run_steps = time.perf_counter(), 0
    self._stepped = True
    self.steps += 1
    self._run_steps += 1
    self.tflops += tflops

  def pace(self) -> float:
    """Returns the seconds of a step, with evaluations and saving between them.

    Since the last compilation, which does not come again.
    """
    seconds = time.perf_counter() - self._run_started
    return seconds / max(self._run_steps, 1)

  def read(self) -> dict[str, float]:
    """Returns the interval's rates, and starts the next one."""
    self.settle()
    seconds = max(time.perf_counter() - self.started, 1e-9)
    per_step = seconds / max(self.steps, 1)
    values = {
      'seconds_per_step': per_step,
      'clips_per_second': self.clips / per_step,
      'data_wait_share': self.waited / seconds,
      'tflops_per_second': self.tflops / seconds,
      **memory(),
    }
    peak = flops.peak_flops(jax.devices()[0].device_kind, self.dtype)
    if peak:
      peak *= jax.device_count() / 1e12
      values['share_of_peak_flops'] = values['tflops_per_second'] / peak
    self.restart()
    return values


def memory() -> dict[str, float]:
  """Returns the peak memory of the fullest local device, or of this process."""
  stats = [d.memory_stats() for d in jax.local_devices()]
  if all(s and 'peak_bytes_in_use' in s for s in stats):
    return {
      'device_peak_gib': max(s['peak_bytes_in_use'] for s in stats) / 2**30
    }
  unit = 1 if sys.platform == 'darwin' else 1024  # Of ru_maxrss, bytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {'host_rss_peak_gib': peak * unit / 2**30}


def forecast(compiled: jax.stages.Compiled) -> str:
  """Returns what a program will need of each device's memory, in words."""
  found = compiled.memory_analysis()
  if found is None:
    return 'memory unknown'
  needed = (
    found.argument_size_in_bytes
    + found.output_size_in_bytes
    - found.alias_size_in_bytes
    + found.temp_size_in_bytes
  )
  stats = jax.local_devices()[0].memory_stats() or {}
  limit = stats.get('bytes_limit')
  of = f' of the {limit / 2**30:.3g} GiB' if limit else ''
  return f'{needed / 2**30:.3g} GiB{of} of a device'


def line(
  span: stages.Span,
  step: int,
  values: Mapping[str, float],
  left: tuple[float, float] | None = None,
) -> str:
  """Returns one line: where a stage is, how it does and when it ends.

  Args:
    span: the stage.
    step: the global step.
    values: of a row of the log.
    left: seconds of the stage and of the run, see `time_left`.
  """
  n = step - span.start
  shown = ('loss', 'grad_norm', 'val_psnr', 'val_loss')
  parts = [f'{span.name} {n}/{span.stage.steps}']
  parts += [f'{k} {values[k]:.4g}' for k in shown if k in values]
  parts += [
    f'{k} {v:.4g}' for k, v in values.items() if k.startswith('small_score/')
  ]
  units = {
    'seconds_per_step': 's/step',
    'clips_per_second': 'clips/s',
    'device_peak_gib': 'GiB of the device at most',
    'host_rss_peak_gib': 'GiB of memory at most',
  }
  parts += [f'{values[k]:.3g} {u}' for k, u in units.items() if k in values]
  if (waited := values.get('data_wait_share', 0.0)) >= SHOWN_WAIT:
    parts.append(f'{waited:.0%} waiting for data')
  if left is not None:
    stage, run = map(clock, left)
    parts.append(f'{stage} left in this stage, about {run} in the run')
  return '  '.join(parts)


def can_cache(config: ConfigDict, stage: ConfigDict) -> bool:
  """Returns whether a stage could train on latents that are encoded once.

  Args:
    config: the run's, with every stage.
    stage: the stage's.
  """
  if stage.objective == 'autoencoder' or config.data.latents:
    return False
  changed = config.copy_and_resolve_references()
  changed.data.latents = 'latents'
  try:
    check.validate(changed)
  except errors.UsageError:
    return False
  return True


def advice(
  waited: float, cacheable: bool, data: ConfigDict, processors: int
) -> str:
  """Returns what to do about time that is lost by waiting for data.

  Args:
    waited: seconds, of the rest of a stage.
    cacheable: whether latents could be cached, see `can_cache`.
    data: `config.data`.
    processors: of this machine.
  """
  ways = []
  if cacheable:
    ways.append('cache the latents (python -m vdm.prepare latents)')
  more = min(max(2, 2 * data.workers), processors - 1)
  if more > max(data.workers, 1):
    ways.append(f'decode in processes (--config.data.workers={more})')
  if not ways:
    ways.append('store the data set on a faster disk')
  return (
    f'About {clock(waited)} of what is left goes into waiting for data: stop, '
    f'{" or ".join(ways)}, and run the same command again.'
  )


def time_left(
  spans: Sequence[stages.Span], step: int, seconds: float
) -> tuple[float, float]:
  """Estimates the seconds until the end of a stage and until that of the run.

  A step of a later stage is taken to cost as much for each pixel of its batch
  as one of this stage; compiling, and the last videos, come on top.

  Args:
    spans: of the run, from the stage of the step on.
    step: the global step.
    seconds: of a step of this stage.
  """
  costs = [
    s.stage.batch
    * s.stage.frames
    * (s.stage.crop**2 or math.prod(sizes.of(s.stage)))
    for s in spans
  ]
  stage = (spans[0].stop - step) * seconds
  later = sum(
    span.stage.steps * seconds * cost / costs[0]
    for span, cost in zip(spans[1:], costs[1:])
  )
  return stage, stage + later


def clock(seconds: float) -> str:
  """Returns seconds as h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}'
