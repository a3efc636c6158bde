"""Rates by a clock that the test turns."""

import types

from config_variants_test import get_config
import jax
import pytest

from vdm.config import schema
from vdm.training import counters
from vdm.training import flops
from vdm.training import stages
from vdm.training import step_log
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
  meter.count(4.0, compile_seconds=1.0)
  clock[0] += 1.0
  for _ in range(3):
    meter.wait(slow)
    meter.count(4.0)
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
  meter.count(4.0)
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


def test_the_pace_is_of_steps_and_what_lies_between_them(clock):
  meter = throughput.Throughput(clips=1, dtype='float32')
  clock[0] += 50
  meter.count(1.0, compile_seconds=1.0)
  for _ in range(3):
    clock[0] += 1.0
    meter.count(1.0)
  meter.read()
  clock[0] += 5.0  # An evaluation: no part of seconds_per_step.
  meter.restart()
  clock[0] += 1.0
  meter.count(1.0)
  assert meter.pace() == pytest.approx((3 + 5 + 1) / 5)
  assert meter.read()['seconds_per_step'] == pytest.approx(1.0)


def test_the_line_says_where_and_how_long():
  span = stages.Span('video', schema.stage(steps=100), 50, 150)
  values = {'loss': 0.123456, 'grad_norm': 2.0, 'param_norm': 7.0}
  values |= {'seconds_per_step': 90.0, 'clips_per_second': 0.0889}
  values |= {'host_rss_peak_gib': 1.5}
  assert throughput.line(span, 110, values, (3600.0, 7260.0)) == (
    'video 60/100  loss 0.1235  grad_norm 2  90 s/step  0.0889 clips/s'
    '  1.5 GiB of memory at most'
    '  1:00:00 left in this stage, about 2:01:00 in the run'
  )
  waiting = values | {'data_wait_share': 0.127}
  assert '  13% waiting for data  1:00:00' in throughput.line(
    span, 110, waiting, (3600.0, 7260.0)
  )
  waiting['data_wait_share'] = 0.009
  assert 'waiting' not in throughput.line(span, 110, waiting)
  values = {'device_peak_gib': 70.25}
  assert '70.2 GiB of the device' in throughput.line(span, 110, values)
  assert (
    throughput.line(span, 51, {'val_loss': 1.5}) == 'video 1/100  val_loss 1.5'
  )


@pytest.mark.parametrize(
  'cacheable, workers, processors, words',
  [
    (True, 0, 2, 'stop, cache the latents (python -m vdm.prepare '),
    (True, 0, 9, ') or decode in processes (--config.data.workers=2)'),
    (False, 2, 9, 'stop, decode in processes (--config.data.workers=4)'),
    (False, 6, 9, 'decode in processes (--config.data.workers=8)'),
    (False, 8, 9, 'stop, store the data set on a faster disk, and'),
  ],
)
def test_long_waiting_has_a_remedy(cacheable, workers, processors, words):
  data = schema.default().data
  data.workers = workers
  text = throughput.advice(754.0, cacheable, data, processors)
  assert text.startswith('About 0:12:34 of what is left goes into waiting')
  assert words in text


def test_a_cache_is_advised_where_the_rules_allow_one():
  config = get_config('synthetic', '')
  stages_of = config.stages
  assert throughput.can_cache(config, stages_of.video)
  assert not throughput.can_cache(config, stages_of.autoencoder)
  config.data.latents = 'cache'
  assert not throughput.can_cache(config, stages_of.video)
  enlarging = get_config('synthetic_cascade', 'enlarge')
  assert not throughput.can_cache(enlarging, enlarging.stages.video)
  assert enlarging.data.latents == ''


def test_the_log_says_it_once_where_it_matters(caplog):
  config = schema.default()
  config.stages.video = schema.stage(steps=100)
  (span,) = [stages.Span('video', config.stages.video, 0, 100)]
  shares, pace = iter([0.9, 0.5, 0.5, 0.9]), iter([0.1, 2.0, 2.0, 2.0])
  rates = types.SimpleNamespace(
    read=lambda: {'data_wait_share': next(shares)}, pace=lambda: next(pace)
  )
  log = step_log.StepLog(
    [span],
    config,
    rates,
    counters.Counters(10),
    types.SimpleNamespace(write=lambda *_: None),
  )
  said = []
  for step in (10, 20, 30, 40):
    log.add(step, {}, {})
    log.flush()
    said.append(caplog.text.count('of what is left goes into waiting'))
  # Of 9 s left 90 % are 8 s; of 160 s half are 80.
  assert said == [0, 1, 1, 1] and 'About 0:01:20 of' in caplog.text


def test_later_stages_cost_what_their_pixels_do():
  first = schema.stage(steps=100, batch=4, frames=1, resolution=64)
  last = schema.stage(steps=50, batch=2, frames=16, resolution=64, crop=32)
  spans = [stages.Span('a', first, 0, 100), stages.Span('b', last, 100, 150)]
  # 60 steps of 0.5 s; then 50 of twice the pixels, 2 x 16 x 32^2 / 4 x 64^2.
  assert throughput.time_left(spans, 40, 0.5) == (30.0, 30.0 + 50.0)
  assert throughput.time_left(spans[1:], 140, 0.5) == (5.0, 5.0)


def test_clock():
  assert throughput.clock(0) == '0:00:00'
  assert throughput.clock(59.6) == '0:01:00'
  assert throughput.clock(36 * 3600 + 61) == '36:01:01'
