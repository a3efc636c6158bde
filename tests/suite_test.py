"""The suite tells spoiled clips from real ones, and a frozen set never wins."""

import numpy as np
import pytest

from benchmarks import metric_sensitivity
from vdm.metrics import suite


@pytest.fixture(scope='module')
def sensitivity(shared):
  """A small version of what the benchmark measures, on real videos."""
  videos, names = metric_sensitivity.read_windows(
    shared / 'clips', ['synthetic', 'broken', 'natural'], 2, 16, 64
  )
  return metric_sensitivity.measure(videos, names)


def test_every_corruption_is_seen_by_a_measure(sensitivity):
  assert sensitivity['windows'] == 20
  best = {}
  for name, row in sensitivity['auc'].items():
    for corruption, area in row.items():
      seen = max(area, 1 - area)
      if seen > best.get(corruption, (0,))[0]:
        best[corruption] = seen, name
  assert len(best) == 10
  assert min(best.values())[0] >= 0.9, best


def test_a_frozen_set_is_never_nearer_than_real_clips(sensitivity):
  for name, row in sensitivity['energy'].items():
    assert row['frozen'] > row['real'], name
  assert sensitivity['energy']['motion']['frozen'] > 0.2
  assert sensitivity['energy']['panel']['frozen'] > 0.4


def toy(count, seed=0, frames=4):
  random = np.random.default_rng(seed)
  return random.integers(0, 256, (count, frames, 16, 16, 3), np.uint8)


def test_clips_are_measured_alike_by_any_number_of_threads_and_kept():
  videos = toy(5)
  done = []
  one = suite.measure(videos, threads=1, progress=done.append)
  many = suite.measure(videos, threads=4)
  assert done == [1, 2, 3, 4, 5]
  again = suite.unpack(suite.pack(one))
  for a, b, c in zip(*(suite.pack(m).items() for m in (one, many, again))):
    np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(a[1], c[1])
  part = suite.select(one, [3, 1])
  np.testing.assert_array_equal(part.panel['flow'], one.panel['flow'][[3, 1]])


def test_summaries_have_intervals_and_limits_and_the_panel_its_units():
  real, other = suite.measure(toy(8)), suite.measure(toy(8, 1))
  dark = suite.measure(toy(8, 2) // 4)
  rows = suite.summarise(real, dark, intervals=True)
  assert tuple(rows) == suite.SUMMARY
  for row in rows.values():
    assert row['low'] <= row['high']
  limits = suite.chance(real, other)
  assert rows['appearance']['energy'] > max(limits['appearance'], 0.5)
  between = suite.between(real, real, dark)
  assert between == {k: pytest.approx(row['energy']) for k, row in rows.items()}
  same = suite.panel(real, real)
  assert all(row['distance'] == 0 for row in same.values())
  assert all(row['separation'] == 0.5 for row in same.values())
  darker = suite.panel(real, dark)['shimmer']
  spread = suite.spread(real)['shimmer']
  assert spread['low'] <= spread['median'] <= spread['high']
  assert darker['separation'] == 1
  assert darker['distance'] == pytest.approx(
    spread['median'] - darker['median'], rel=0.1
  )


@pytest.mark.parametrize(
  'videos, words',
  [
    (np.zeros((2, 4, 8, 8, 3)), 'uint8 clips'),
    (np.zeros((4, 8, 8, 3), np.uint8), 'uint8 clips'),
    (np.zeros((2, 2, 8, 8, 3), np.uint8), '2 frames have no motion'),
  ],
)
def test_what_cannot_be_measured_is_refused(videos, words):
  with pytest.raises(ValueError, match=words):
    suite.measure(videos)
