"""Averages of averages against the averages themselves."""

import numpy as np
import pytest

from vdm.common import power_averages

NARROW, WIDE = (power_averages.gamma(width) for width in (0.05, 0.10))


def stored(steps, exponents=(NARROW, WIDE)):
  return [
    power_averages.Average(exponent, step)
    for step in steps
    for exponent in exponents
  ]


def of_values(average, values):
  """The average of values [updates, d], by its recursion."""
  result = np.zeros(values.shape[1])
  for k, value in enumerate(values[: average.count], 1):
    beta = (1 - 1 / k) ** (average.gamma + 1)
    result = beta * result + (1 - beta) * value
  return result


def walk(updates, seed=0):
  """A parameter of 200 values that learns fast, then slowly, with noise."""
  random = np.random.default_rng(seed)
  steps = random.normal(size=(updates, 200)) / np.sqrt(updates)
  towards = random.normal(size=200)
  learned = 1 - np.exp(-5 * np.arange(updates)[:, None] / updates)
  return 1.0 + towards * learned + 0.3 * np.cumsum(steps, axis=0)


def test_weights_are_those_of_the_recursion():
  average = power_averages.Average(WIDE, 40)
  np.testing.assert_allclose(
    power_averages.weights(average, 1, 50),
    np.append(of_values(average, np.eye(40)), np.zeros(10)),
    atol=1e-12,
  )
  np.testing.assert_array_equal(
    power_averages.weights(average, 11, 20),
    power_averages.weights(average, 1, 50)[10:20],
  )


@pytest.mark.parametrize('width', [0.03, 0.07, 0.14, 0.2])
@pytest.mark.parametrize('count', [1600, 1450])
def test_any_width_at_any_update_comes_out_of_snapshots(width, count):
  have = stored(range(100, 1601, 100))
  wanted = power_averages.Average(power_averages.gamma(width), count)
  factors, rest = power_averages.combine(have, wanted)
  values = walk(1600)
  found = factors @ np.stack([of_values(x, values) for x in have])
  expected = of_values(wanted, values)
  error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
  assert error < (0.01 if count < 1600 and width < 0.05 else 0.002)
  assert rest < (1.0 if width < 0.05 else 0.35)


def test_what_is_stored_comes_out_as_it_is():
  have = stored([400, 800])
  factors, rest = power_averages.combine(have, have[2])
  np.testing.assert_allclose(factors, [0, 0, 1, 0], atol=1e-7)
  assert rest < 1e-6


def test_more_snapshots_come_closer():
  wanted = power_averages.Average(power_averages.gamma(0.15), 1600)
  rests = [
    power_averages.combine(stored(range(every, 1601, every)), wanted)[1]
    for every in (800, 400, 200, 100)
  ]
  assert rests == sorted(rests, reverse=True) and rests[-1] < rests[0] / 4


def test_a_constant_is_its_own_average():
  have = stored([10, 500], (WIDE,))
  wanted = power_averages.Average(NARROW, 700)
  assert power_averages.combine(have, wanted)[0].sum() == pytest.approx(1.0)
  with pytest.raises(ValueError, match='no stored averages'):
    power_averages.combine([], wanted)


@pytest.mark.parametrize('width', [0.0, -0.05, float('nan')])
def test_there_is_no_average_of_no_width(width):
  with pytest.raises(ValueError, match='is above 0, not'):
    power_averages.gamma(width)
