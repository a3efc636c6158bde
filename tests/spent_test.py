"""What training cost: summed over steps, stages and restarts."""

import numpy as np
import pytest

from vdm.training import spent
from vdm.training import throughput


def row(step, seconds, clips=8.0, tflops=2.0, **values):
  rates = {'clips_per_second': clips, 'tflops_per_second': tflops}
  return {'step': step, 'seconds_per_step': seconds} | rates | values


def test_old_rows_are_summed_and_evaluations_lie_between():
  rows = [
    row(1, 1.0),
    row(10, 0.5),
    {'step': 10, 'val_loss': 1.0},
    {'step': 15, 'val_loss': 1.0},
    row(20, 0.25),
    {'step': 25, 'resumed_from': 25},
  ]
  found = spent.totals(rows)
  seconds = [1.0, 5.5, 5.5, 6.75, 8.0, 8.0]
  np.testing.assert_allclose(found['train_seconds'], seconds)
  np.testing.assert_allclose(found['train_clips'], 8 * np.array(seconds))
  np.testing.assert_allclose(found['train_tflop'], 2 * np.array(seconds))
  assert spent.totals([])['train_seconds'].tolist() == [0.0]


def test_rows_with_sums_go_on_from_older_ones():
  sums = {'train_seconds': 90.0, 'train_tflop': 7.0, 'train_clips': 80.0}
  found = spent.totals([row(10, 0.5), row(20, 1.0, **sums), row(30, 1.0)])
  assert found['train_seconds'].tolist() == [5.0, 90.0, 100.0]
  assert found['train_tflop'].tolist() == [10.0, 7.0, 27.0]


def test_a_run_resumes_with_its_sums_and_an_old_one_with_its_rows():
  total = spent.Spent()
  total.resume({'skipped_steps': 0}, lambda: [row(10, 0.5), row(20, 1.0)])
  assert total == spent.Spent(15.0, 30.0, 120.0)
  again = spent.Spent()
  again.resume(total.values() | {'stage': 'video'}, lambda: 1 / 0)
  assert again == total
  total.resume({}, list)  # A new run.
  assert total == spent.Spent()


def test_only_training_counts(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(throughput.time, 'perf_counter', lambda: now[0])
  total = spent.Spent(seconds=100.0)
  meter = throughput.Throughput(4, 'float32', total)

  def step(seconds, compile_seconds=0.0):
    now[0] += seconds
    meter.count(3.0, compile_seconds=compile_seconds)

  step(60.0, 50.0)  # The start and the compilation.
  step(1.0)
  now[0] += 1.0  # Until the row's values are there.
  meter.read()
  step(1.0)
  step(11.0, 10.0)  # Another program in the middle of an interval.
  now[0] += 1.0
  meter.settle()
  now[0] += 500.0  # An evaluation.
  meter.restart()
  step(1.0)
  meter.settle()
  assert total.seconds == pytest.approx(100 + 1 + 1 + 1 + 1 + 1 + 1)
  assert (total.clips, total.tflop) == (20, 15)
