"""Rates by a clock that the test turns."""

import jax
import pytest

from vdm.config import schema
from vdm.training import flops
from vdm.training import stages
from vdm.training import throughput


@pytest.fixture
def clock(monkeypatch):
  """Seconds of `time.perf_counter`, in a list of one."""
  now = [100.0]
  monkeypatch.setattr(throughput.time, 'perf_counter', lambda: now[0])
  return now


def test_rates_are_over_the_interval(clock, monkeypatch):
  monkeypatch.setattr(flops, 'peak_flops', lambda *_: 1e12)
  meter = throughput.Throughput(clips=6, dtype='float32')

  def slow():
    clock[0] += 0.5
    return 'batch'

  # The first step is compiled: its time and its waiting do not count.
  clock[0] += 50
  assert meter.wait(slow) == 'batch'
  meter.count(4.0, compiled=True)
  clock[0] += 1.0
  for _ in range(3):
    meter.wait(slow)
    meter.count(4.0, compiled=False)
    clock[0] += 1.0
  values = meter.read()
  # 4 steps in 1 + 3 x 1.5 s, of which 1.5 s waiting.
  assert values['seconds_per_step'] == pytest.approx(5.5 / 4)
  assert values['clips_per_second'] == pytest.approx(6 * 4 / 5.5)
  assert values['data_wait_share'] == pytest.approx(1.5 / 5.5)
  assert values['tflops_per_second'] == pytest.approx(4 * 4 / 5.5)
  share = values['tflops_per_second'] / jax.device_count()
  assert values['share_of_peak_flops'] == pytest.approx(share)
  # The next interval starts there.
  clock[0] += 2.0
  meter.count(4.0, compiled=False)
  assert meter.read()['seconds_per_step'] == pytest.approx(2.0)


def test_an_unknown_device_has_no_share_of_its_peak(clock, monkeypatch):
  monkeypatch.setattr(flops, 'peak_flops', lambda *_: None)
  meter = throughput.Throughput(clips=1, dtype='float32')
  clock[0] += 1
  assert 'share_of_peak_flops' not in meter.read()


def test_memory_has_the_name_of_what_it_measures():
  ((name, value),) = throughput.memory().items()
  if jax.default_backend() == 'cpu':
    assert name == 'host_rss_peak_gib'
    assert 0.05 < value < 200  # jax alone is more; no machine here is larger.
  else:
    assert name == 'device_peak_gib' and value > 0


def test_the_line_says_where_and_how_long():
  span = stages.Span('video', schema.stage(steps=100), 50, 150)
  values = {'loss': 0.123456, 'grad_norm': 2.0, 'param_norm': 7.0}
  values['seconds_per_step'] = 90.0
  assert throughput.line(span, 110, values) == (
    'video 60/100  loss 0.1235  grad_norm 2  90 s/step'
    '  1:00:00 left in this stage'
  )
  assert (
    throughput.line(span, 51, {'val_loss': 1.5}) == 'video 1/100  val_loss 1.5'
  )


def test_clock():
  assert throughput.clock(0) == '0:00:00'
  assert throughput.clock(59.6) == '0:01:00'
  assert throughput.clock(36 * 3600 + 61) == '36:01:01'
