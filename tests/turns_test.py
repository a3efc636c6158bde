"""Benchmarks time two sides in turns, and compare networks of equal cost."""

import pytest

from benchmarks import common


def test_two_sides_are_timed_in_turns_on_a_machine_that_slows_down():
  clock, order = [0.0], []

  def side(name, cost):
    def run():
      order.append(name)
      clock[0] += 1
      return cost * (1 + 0.1 * clock[0])

    return run

  timed = common.in_turns(side('a', 1.0), side('b', 2.0), pairs=4)
  assert order == ['b', 'a', 'a', 'b', 'b', 'a', 'a', 'b', 'b', 'a']
  assert len(timed['ours']) == len(timed['theirs']) == 4  # The first is left.
  # One call later costs a tenth more: half of the pairs are above the true
  # ratio and half below, and their median is nearer to it than either.
  low, high = timed['ratio_range']
  assert low < 2 < high
  assert abs(timed['ratio'] - 2) < 0.02 < high - 2
  assert timed['ratio'] == pytest.approx(
    sum(sorted(b / a for a, b in zip(timed['ours'], timed['theirs']))[1:3]) / 2
  )


def test_networks_are_matched_by_ratio():
  rows = [{'width': w, 'parameters': w**2} for w in (8, 16, 32)]
  assert common.closest(rows, 'parameters', 300)['width'] == 16
  # 128 is twice 64 and half of 256; 150 is nearer to 256.
  assert common.closest(rows, 'parameters', 150)['width'] == 16
  assert common.closest(rows, 'parameters', 1)['width'] == 8
  with pytest.raises(ValueError, match='no width'):
    common.closest([], 'parameters', 1)
