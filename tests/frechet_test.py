"""Frechet and kernel distances against closed forms, scipy and themselves."""

import numpy as np
import pytest
from scipy import linalg

from vdm.metrics import frechet


def draw(seed, n, d, mean=0.0):
  """Features with a covariance of falling spectrum."""
  random = np.random.default_rng(seed)
  return random.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5 + mean


def by_sqrtm(x, y, unbiased=False):
  """The textbook formula."""
  a, b = (np.atleast_2d(np.cov(z.T, ddof=int(unbiased))) for z in (x, y))
  root = linalg.sqrtm(a @ b).real
  apart = np.square(x.mean(0) - y.mean(0)).sum()
  return apart + np.trace(a + b - 2 * root)


def test_gaussians_with_one_axis_system_have_a_closed_form():
  random = np.random.default_rng(0)
  s, r = random.uniform(0.1, 3, (2, 6))
  m, k = random.standard_normal((2, 6))
  basis, _ = np.linalg.qr(random.standard_normal((6, 6)))
  a = frechet.Moments(10, m, 10 * basis @ np.diag(s**2) @ basis.T)
  b = frechet.Moments(20, k, 20 * basis @ np.diag(r**2) @ basis.T)
  expected = np.square(m - k).sum() + np.square(s - r).sum()
  assert frechet.frechet(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('n, m, d', [(300, 200, 12), (90, 80, 79)])
def test_agrees_with_the_root_of_the_product(n, m, d, unbiased):
  x, y = draw(0, n, d), draw(1, m, d, 0.1)
  ours = frechet.frechet_of_features(x, y, unbiased=unbiased)
  assert ours == pytest.approx(by_sqrtm(x, y, unbiased), rel=1e-6)


def test_both_forms_agree_with_fewer_clips_than_features():
  x, y = draw(0, 30, 100), draw(1, 25, 100, 0.1)
  by_features = frechet.frechet_of_features(x, y)
  by_moments = frechet.frechet(frechet.moments(x), frechet.moments(y))
  assert by_moments == pytest.approx(by_features, rel=1e-9)
  # The root of a product of rank-deficient matrices loses digits.
  assert by_sqrtm(x, y) == pytest.approx(by_features, rel=1e-3)


@pytest.mark.parametrize('n, d', [(500, 40), (20, 100)])
def test_a_set_is_at_no_distance_from_itself(n, d):
  x = draw(0, n, d)
  size = np.square(x).sum(1).mean()
  assert abs(frechet.frechet_of_features(x, x[::-1])) < 1e-10 * size
  m = frechet.moments(x)
  assert abs(frechet.frechet(m, m)) < 1e-10 * size


def test_rotations_and_shifts_of_both_sets_change_nothing():
  x, y = draw(0, 200, 20), draw(1, 200, 20, 0.2)
  basis, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((20, 20)))
  turned = [z @ basis + 3.0 for z in (x, y)]
  for distance in (frechet.frechet_of_features,):
    assert distance(*turned) == pytest.approx(distance(x, y), rel=1e-9)
  away = np.full(20, 0.5)
  moved = frechet.frechet_of_features(x, x + away)
  assert moved == pytest.approx(np.square(away).sum(), rel=1e-9)


def test_moments_are_those_of_numpy():
  x = draw(0, 101, 7, 100.0).astype(np.float32)  # A mean far from zero.
  moments = frechet.moments(x)
  assert moments.count == 101
  x = x.astype(np.float64)
  np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-13)
  expected = np.cov(x.T, ddof=1)
  np.testing.assert_allclose(moments.scatter, 100 * expected, rtol=1e-9)
  np.testing.assert_allclose(
    frechet.covariance(moments, unbiased=True), expected, rtol=1e-9
  )


def test_the_bias_is_seen_and_extrapolated_away():
  """Sets of one Gaussian: the truth is 0, at any number of clips."""
  x, y = draw(0, 600, 60), draw(1, 600, 60)
  biased = frechet.frechet_of_features(x, y)
  few = frechet.frechet_of_features(x[:150], y[:150])
  assert few > 3 * biased > 0
  limit = frechet.frechet_infinity(x, y)
  assert abs(limit) < 0.1 * biased
  with pytest.raises(ValueError, match='too few'):
    frechet.frechet_infinity(x[:8], y)


def test_kernel_distance_is_the_written_sum():
  x, y = draw(0, 9, 4), draw(1, 7, 4, 0.3)

  def k(a, b):
    return (np.dot(a, b) / 4 + 1) ** 3

  within = [
    np.mean(
      [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
    )
    for z in (x, y)
  ]
  across = np.mean([k(a, b) for a in x for b in y])
  expected = sum(within) - 2 * across
  for block in (1, 4, 1024):
    ours = frechet.kernel_distance(x, y, block=block)
    assert ours == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased_at_256_clips():
  """Means over draws of one Gaussian are within four of their own errors."""
  values = [
    frechet.kernel_distance(draw(2 * i, 256, 50), draw(2 * i + 1, 256, 50))
    for i in range(40)
  ]
  error = np.std(values, ddof=1) / len(values) ** 0.5
  assert abs(np.mean(values)) < 4 * error
  assert min(values) < 0 < max(values)
  shifted = frechet.kernel_distance(draw(0, 256, 50), draw(1, 256, 50, 0.3))
  assert shifted > 4 * np.std(values)


def test_intervals_hold_the_value_and_narrow_with_more_clips():
  def interval(n):
    x, y = draw(0, n, 5), draw(1, n, 5, 0.5)
    low, high = frechet.bootstrap(frechet.frechet_of_features, x, y, repeats=60)
    assert low < frechet.frechet_of_features(x, y) < high
    return high - low

  assert interval(800) < 0.6 * interval(100)


def test_intervals_of_a_biased_distance_lie_about_it():
  """Fewer clips than features: every resample is farther than the sets."""
  x, y = draw(0, 64, 100), draw(1, 64, 100, 0.1)
  value, found = frechet.frechet_of_features(x, y), []

  def statistic(a, b):
    found.append(frechet.frechet_of_features(a, b))
    return found[-1]

  low, high = frechet.bootstrap(statistic, x, y, repeats=60)
  resampled = np.sort(found)[1:]  # Without the value of the sets themselves.
  assert found.count(value) == 1 and min(resampled) > value
  assert low < value < high
  # As wide as the resamples are, and with their mean moved to the value.
  wanted = np.quantile(resampled, [0.025, 0.975]) - resampled.mean() + value
  np.testing.assert_allclose([low, high], wanted)


@pytest.mark.parametrize(
  'features, words',
  [
    (np.zeros(3), 'Features are'),
    (np.zeros((0, 3)), 'Features are'),
    (np.full((2, 3), np.nan), 'not finite'),
  ],
)
def test_what_is_no_set_of_features_is_refused(features, words):
  with pytest.raises(ValueError, match=words):
    frechet.moments(features)
  with pytest.raises(ValueError, match='two features'):
    frechet.kernel_distance(np.ones((1, 3)), np.ones((4, 3)))
  with pytest.raises(ValueError, match='two features'):
    frechet.covariance(frechet.moments(np.ones((1, 3))), unbiased=True)
