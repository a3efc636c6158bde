"""Energy distances, permutations and areas against direct computation."""

import numpy as np
import pytest
from scipy import stats

from vdm.metrics import distances


def draw(seed, n, d=3, shift=0.0):
  return np.random.default_rng(seed).standard_normal((n, d)) + shift


def test_energy_is_the_written_sum_as_a_share():
  x, y = draw(0, 8), draw(1, 6, shift=0.4)

  def mean(a, b, same):
    return np.mean(
      [
        np.linalg.norm(p - q)
        for i, p in enumerate(a)
        for j, q in enumerate(b)
        if not same or i != j
      ]
    )

  across = mean(x, y, False)
  expected = 1 - (mean(x, x, True) + mean(y, y, True)) / (2 * across)
  ours = distances.Pooled(x, y).energy()
  assert ours == pytest.approx(expected, rel=1e-10)


def test_energy_agrees_with_scipy_in_one_dimension():
  x, y = draw(0, 400, 1), draw(1, 300, 1, shift=1.0)
  across = np.abs(x - y.T).mean()
  # scipy: sqrt of the V-statistic, which pairs a value with itself.
  theirs = stats.energy_distance(x[:, 0], y[:, 0]) ** 2 / (2 * across)
  assert distances.Pooled(x, y).energy() == pytest.approx(theirs, abs=4e-3)


def test_energy_is_unbiased_and_sees_a_spread():
  values = [
    distances.Pooled(draw(2 * i, 20), draw(2 * i + 1, 30)).energy()
    for i in range(200)
  ]
  assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5
  wide = distances.Pooled(draw(0, 200), 2 * draw(1, 200)).energy()
  assert wide > 0.03
  apart = distances.Pooled(draw(0, 50), draw(1, 50, shift=100.0)).energy()
  assert 0.95 < apart <= 1


def test_the_interval_is_about_the_value_though_rows_are_drawn_twice():
  inside = 0
  for seed in range(20):
    pooled = distances.Pooled(
      draw(2 * seed, 60), draw(2 * seed + 1, 60, shift=0.5)
    )
    low, high = pooled.interval(repeats=60)
    inside += low < pooled.energy() < high
    assert high - low < 0.3
  assert inside >= 19


def test_the_smallest_sets_have_an_interval():
  low, high = distances.Pooled(draw(0, 2), draw(1, 2)).interval()
  assert np.isfinite([low, high]).all()


def test_permutations_keep_videos_together():
  # Ten videos whose windows are all alike: divisions of windows would see no
  # difference between halves, divisions of videos do.
  videos = np.repeat(draw(0, 10), 6, axis=0) + 0.01 * draw(1, 60)
  groups = np.repeat(np.arange(10), 6)
  pooled = distances.Pooled(videos[:30], videos[30:])
  together, apart = pooled.null(groups), pooled.null()
  assert np.quantile(together, 0.95) > 3 * np.quantile(apart, 0.95)
  assert pooled.energy() < np.quantile(together, 0.99)
  far = distances.Pooled(videos[:30], videos[30:] + 2.0)
  assert far.energy() > np.quantile(apart, 0.99)
  with pytest.raises(ValueError, match='1 videos of 60 clips cannot be'):
    pooled.null(np.zeros(60))


def test_nothing_to_compare_is_refused_and_equal_rows_are_at_no_distance():
  with pytest.raises(ValueError, match='two clips'):
    distances.Pooled(draw(0, 1), draw(1, 5))
  assert distances.Pooled(np.ones((3, 2)), np.ones((4, 2))).energy() == 0


def test_wasserstein_and_auc_agree_with_scipy():
  x, y = draw(0, 57, 1)[:, 0], np.round(draw(1, 44, 1, 0.3)[:, 0], 1)
  ours = distances.wasserstein(x, y)
  assert ours == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-10)
  x = np.round(x, 1)  # With ties.
  statistic = stats.mannwhitneyu(y, x).statistic
  assert distances.auc(x, y) == pytest.approx(statistic / (len(x) * len(y)))
  assert distances.auc(x, x) == 0.5
  assert distances.auc(np.zeros(3), np.ones(2)) == 1


def test_ranks_and_deviations_are_those_of_the_reference():
  ranks = distances.ranks(np.array([1.0, 2, 2, 3]), np.array([0.0, 1, 2, 3, 4]))
  np.testing.assert_allclose(ranks, [0, 0.125, 0.5, 0.875, 1])
  reference = draw(0, 50, 2, 7.0) * [1, 1e-9]
  scaled = distances.standardise(reference, reference)
  assert scaled[:, 0].std() == pytest.approx(1)
  assert scaled[:, 1].std() < 1e-6  # Hardly any spread: not blown up.
  constant = np.ones((5, 2))
  assert (distances.standardise(constant, constant) == 0).all()
