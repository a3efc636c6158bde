"""Rates, memory and the one line that says how a run is doing."""

import resource
import sys
import time

import jax

from vdm.training import flops


class Meter:
  """Counts what happens between two rows of the log.

  Attributes:
    clips: of a step, over all devices.
    step_flops: operations of a step, over all devices.
  """

  def __init__(self, clips, step_flops, dtype):
    self.clips, self.step_flops, self.dtype = clips, step_flops, dtype
    self.restart()

  def restart(self):
    """Starts a new interval."""
    self.began, self.waited, self.steps = time.perf_counter(), 0.0, 0

  def wait(self, function):
    """Runs what brings the next batch, and counts its time as waiting."""
    began = time.perf_counter()
    result = function()
    self.waited += time.perf_counter() - began
    return result

  def read(self):
    """The interval's rates, and starts the next one."""
    seconds = max(time.perf_counter() - self.began, 1e-9)
    per_step = seconds / max(self.steps, 1)
    values = {
        'seconds_per_step': per_step,
        'clips_per_second': self.clips / per_step,
        'data_wait_share': self.waited / seconds,
        'tflops_per_second': self.step_flops / per_step / 1e12,
        **memory(),
    }
    peak = flops.peak_flops(jax.devices()[0].device_kind, self.dtype)
    if peak:
      total = peak * jax.device_count()
      values['share_of_peak_flops'] = self.step_flops / per_step / total
    self.restart()
    return values


def memory():
  """Peak memory: of the fullest local device, or of this process's host."""
  stats = [d.memory_stats() for d in jax.local_devices()]
  if all(s and 'peak_bytes_in_use' in s for s in stats):
    return {'device_peak_gib': max(s['peak_bytes_in_use'] for s in stats) / 2**30}
  unit = 1 if sys.platform == 'darwin' else 1024  # Of ru_maxrss, bytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {'host_rss_peak_gib': peak * unit / 2**30}


def progress(span, n, values, seconds_per_step, steps_left):
  """One line: where the run is, how it does and when it ends."""
  numbers = [
      f'{name} {values[name]:.4g}'
      for name in ('loss', 'grad_norm', 'val_psnr', 'val_loss')
      if name in values
  ]
  return (
      f'{span.name} {n}/{span.stage.steps}  {"  ".join(numbers)}  '
      f'{1 / seconds_per_step:.3g} steps/s  '
      f'stage ends in {clock((span.stage.steps - n) * seconds_per_step)}, '
      f'{steps_left} steps to go'
  )


def clock(seconds):
  """Seconds as h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}'
