"""Tests over seeds: SciPy's numbers, the promised rates, and Holm's."""

import numpy as np
import pytest
from scipy import stats

from vdm.metrics import seed_tests


def draws(shape, seed=0, scale=1.0, shift=0.0):
  return shift + scale * np.random.default_rng(seed).normal(size=shape)


def test_quantiles_are_those_of_t():
  for freedom in (1, 2, 3, 7.3, 30, 1000):
    assert seed_tests.quantile(freedom) == pytest.approx(
      stats.t.ppf(0.975, freedom), rel=1e-9
    )


@pytest.mark.parametrize('n', [2, 3, 5, 12])
def test_pairs_agree_with_scipy(n):
  x, y = draws((4, n)), draws((4, n), 1, 2.0, 0.3)
  ours, theirs = seed_tests.paired(x, y), stats.ttest_rel(y, x, axis=-1)
  ends = theirs.confidence_interval(0.95)
  np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-9)
  np.testing.assert_allclose(ours.low, ends.low, rtol=1e-9)
  np.testing.assert_allclose(ours.high, ends.high, rtol=1e-9)


@pytest.mark.parametrize('n, m', [(2, 2), (3, 5), (9, 4)])
def test_welch_agrees_with_scipy(n, m):
  x, y = draws((4, n)), draws((4, m), 1, 3.0, 0.3)
  ours = seed_tests.welch(x, y)
  theirs = stats.ttest_ind(y, x, axis=-1, equal_var=False)
  ends = theirs.confidence_interval(0.95)
  np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-9)
  np.testing.assert_allclose(ours.low, ends.low, rtol=1e-9)
  np.testing.assert_allclose(ours.high, ends.high, rtol=1e-9)


def test_intervals_of_means():
  x = draws((3, 6))
  mean, half = seed_tests.interval(x)
  low, high = stats.t.interval(0.95, 5, x.mean(-1), stats.sem(x, axis=-1))
  np.testing.assert_allclose(mean - half, low)
  np.testing.assert_allclose(mean + half, high)
  assert np.isnan(seed_tests.interval(x[:, :1])[1]).all()


@pytest.mark.parametrize('test', [seed_tests.paired, seed_tests.welch])
def test_without_spread_nothing_is_found(test):
  same = test(np.full(3, 0.9), np.full(3, 0.9))
  assert (same.p, same.difference) == (1.0, 0.0)
  # Differences of 0.1 that are rounded differently are no spread either.
  x = np.array([0.1, 0.2, 0.3]) if test is seed_tests.paired else np.full(3, 1)
  other = test(x, x + 0.1)
  assert other.p == 1.0 and other.difference == pytest.approx(0.1)


def test_holm_is_the_published_procedure():
  p = np.array([0.01, 0.04, 0.03, 0.005])
  np.testing.assert_allclose(seed_tests.holm(p), [0.03, 0.06, 0.06, 0.02])
  np.testing.assert_allclose(
    seed_tests.holm(np.array([p, p[::-1]])),
    [[0.03, 0.06, 0.06, 0.02], [0.02, 0.06, 0.06, 0.03]],
  )
  assert seed_tests.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
  assert seed_tests.holm(np.array([0.03])).tolist() == [0.03]


@pytest.mark.parametrize('n', [2, 3, 5, 10])
@pytest.mark.parametrize('kind', ['pairs', 'welch', 'unequal'])
def test_equal_configurations_keep_the_promised_rate(n, kind):
  """2 000 comparisons; seeds have effects of their own, that pairs share."""
  own = 2 * draws((2000, n), 1) * (kind == 'pairs')
  x, y = own + draws((2000, n), 2), own + draws((2000, n), 3)
  if kind == 'unequal':
    y = draws((2000, n + 2), 4, 4.0)
  test = seed_tests.paired if kind == 'pairs' else seed_tests.welch
  rate = (test(x, y).p < seed_tests.LEVEL).mean()
  # Four deviations of a share of 2 000; Welch's test of few is conservative.
  error = 4 * (0.05 * 0.95 / 2000) ** 0.5
  assert rate <= 0.05 + error
  if kind == 'pairs' or n >= 5:
    assert rate >= 0.05 - error


@pytest.mark.parametrize('shared', [0.0, 0.9])
def test_of_many_numbers_one_is_false_in_one_of_twenty(shared):
  """2 000 comparisons of 40 numbers, independent or nearly the same."""
  common = draws((2, 2000, 1, 4), 5)
  x, y = shared**0.5 * common + (1 - shared) ** 0.5 * draws((2, 2000, 40, 4))
  p = seed_tests.paired(x, y).p
  plain, corrected = p < 0.05, seed_tests.holm(p) < 0.05
  error = 4 * (0.05 * 0.95 / 2000) ** 0.5
  assert corrected.any(-1).mean() <= 0.05 + error
  if not shared:
    assert corrected.any(-1).mean() >= 0.05 - error
    assert plain.any(-1).mean() > 0.8  # What the correction is for.


@pytest.mark.parametrize('effect, n', [(1.0, 5), (2.0, 4), (0.5, 20)])
@pytest.mark.parametrize('pairs', [True, False])
def test_a_known_difference_is_found_at_the_expected_rate(effect, n, pairs):
  x, y = draws((4000, n), 6), draws((4000, n), 7, 1.0, effect * 2**0.5)
  test = seed_tests.paired if pairs else seed_tests.welch
  found = (test(x, y).p < 0.05).mean()
  expected = float(seed_tests.power(effect, n, 0.05, pairs=pairs))
  # Welch's degrees of freedom are estimated, which costs up to 3 %.
  assert abs(found - expected) < 0.03 + (0 if pairs else 0.03)


@pytest.mark.parametrize('effect, n', [(40.0, 2), (400.0, 2), (18.0, 3)])
def test_large_effects_of_few_seeds_at_a_strict_level(effect, n):
  """Of one degree of freedom t has to exceed 509 here."""
  level = 0.05 / 40
  x, y = draws((20_000, n), 8), draws((20_000, n), 9, 1.0, effect * 2**0.5)
  found = (seed_tests.paired(x, y).p < level).mean()
  expected = float(seed_tests.power(effect, n, level, pairs=True))
  assert 0.03 < found < 0.97 and abs(found - expected) < 0.015
  needed = seed_tests.seeds_needed(effect, level, pairs=True)
  assert (needed > n) == (expected < 0.8)


def test_power_and_seeds_needed_agree_with_scipy():
  n, effect = 6, 1.2
  critical = stats.t.ppf(0.975, n - 1)
  moved = effect * n**0.5
  expected = stats.nct.sf(critical, n - 1, moved)
  expected += stats.nct.cdf(-critical, n - 1, moved)
  power = seed_tests.power(effect, n, 0.05, pairs=True)
  assert power == pytest.approx(expected, rel=1e-6)
  for effect in (0.3, 1.0, 3.0):
    for pairs in (True, False):
      needed = seed_tests.seeds_needed(effect, pairs=pairs)
      at = seed_tests.power(effect, needed, 0.05, pairs=pairs)
      before = seed_tests.power(effect, max(needed - 1, 2), 0.05, pairs=pairs)
      assert at >= 0.8 and (before < 0.8 or needed == 2)
  assert seed_tests.seeds_needed(1.0, pairs=True) == 10  # Cohen's tables.
  assert seed_tests.seeds_needed(1e-3, pairs=True) is None
  assert seed_tests.seeds_needed(np.inf, pairs=True) is None
  assert seed_tests.seeds_needed(1e3, pairs=False) == 2
