"""Rates, memory and the one line that says how a run is doing."""

import resource
import sys
import time

import jax

from vdm.training import flops


class Meter:
  """Counts what happens between two rows of the log."""

  def __init__(self, clips, dtype):
    """Starts the first interval.

    Args:
      clips: of a step, over all devices.
      dtype: that the network computes in, for the devices' peak.
    """
    self.clips, self.dtype = clips, dtype
    self.restart()

  def restart(self):
    """Starts a new interval."""
    self.began, self.waited = time.perf_counter(), 0.0
    self.steps, self.tflops = 0, 0.0

  def wait(self, function):
    """Calls what brings the next batch, and counts its time as waiting."""
    began = time.perf_counter()
    result = function()
    self.waited += time.perf_counter() - began
    return result

  def count(self, tflops, *, compiled):
    """Counts a step; one that had to be compiled begins a new interval."""
    if compiled:
      self.restart()
    self.steps += 1
    self.tflops += tflops

  def read(self):
    """The interval's rates, and starts the next one."""
    seconds = max(time.perf_counter() - self.began, 1e-9)
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


def memory():
  """Peak memory: of the fullest local device, or of this process's host."""
  stats = [d.memory_stats() for d in jax.local_devices()]
  if all(s and 'peak_bytes_in_use' in s for s in stats):
    return {
      'device_peak_gib': max(s['peak_bytes_in_use'] for s in stats) / 2**30
    }
  unit = 1 if sys.platform == 'darwin' else 1024  # Of ru_maxrss, bytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {'host_rss_peak_gib': peak * unit / 2**30}


def line(span, n, values, rates=None):
  """One line: where a stage is, how it does and when it ends."""
  shown = ('loss', 'grad_norm', 'val_psnr', 'val_loss')
  parts = [f'{span.name} {n}/{span.stage.steps}']
  parts += [f'{k} {values[k]:.4g}' for k in shown if k in values]
  parts += [
    f'{k} {v:.4g}' for k, v in values.items() if k.startswith('small_score/')
  ]
  if rates:
    seconds = rates['seconds_per_step']
    left = clock((span.stage.steps - n) * seconds)
    parts += [f'{seconds:.3g} s/step', f'{left} left in this stage']
  return '  '.join(parts)


def clock(seconds):
  """Seconds as h:mm:ss."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}'
