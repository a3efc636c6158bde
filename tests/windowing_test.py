"""Shots, legal starts and the records that a window lies in."""

import types

import numpy as np
import pytest

from vdm.data import clip_spec
from vdm.data import windowing


def make_source(records):
  """A source of the given (shot, start, n) records, with an index alone."""
  shot, start, n = zip(*records)
  return types.SimpleNamespace(
    info={'name': 'fake', 'frame_rate': 10.0, 'resolution': 8},
    index={'shot': np.array(shot), 'start': np.array(start), 'n': np.array(n)},
  )


def find(source, frames, stride=1, resolution=8):
  spec = clip_spec.ClipSpec(frames=frames, stride=stride, resolution=resolution)
  return windowing.find_windows(source, spec)


# Shot 'a': 13 frames in three records; 'b': 4 frames; 'c': 2 frames; stored
# in an order that is neither by shot nor by time.
RECORDS = [('b', 0, 4), ('a', 10, 3), ('c', 0, 2), ('a', 0, 5), ('a', 5, 5)]


@pytest.mark.parametrize(
  'frames, stride, starts',
  [(1, 1, [13, 4, 2]), (4, 1, [10, 1]), (4, 3, [4]), (2, 3, [10, 1])],
)
def test_windows_are_every_legal_start(frames, stride, starts):
  found = find(make_source(RECORDS), frames, stride)
  np.testing.assert_array_equal(found.counts, starts)
  # By hand: which record and which frame of it frame f of a shot is.
  place = {}
  for entry, (shot, start, n) in enumerate(RECORDS):
    for i in range(n):
      place[shot, start + i] = (entry, i)
  for shot, count in enumerate(starts):
    for start in range(count):
      got = [
        (entry, position)
        for entry, positions in found.locate(shot, start)
        for position in positions
      ]
      wanted = [place['abc'[shot], start + stride * i] for i in range(frames)]
      assert got == wanted


def test_records_that_do_not_adjoin_are_separate_shots():
  # Frames 4 to 9 of shot 7 are in another split.
  source = make_source([(7, 0, 4), (7, 10, 6), (3, 20, 4)])
  found = find(source, 4)
  np.testing.assert_array_equal(found.counts, [1, 1, 3])
  (entry, positions), *rest = found.locate(2, 2)
  assert (entry, list(positions), rest) == (1, [2, 3, 4, 5], [])


def test_the_order_of_shots_does_not_depend_on_the_order_of_records():
  one = find(make_source(RECORDS), 2)
  two = find(make_source(RECORDS[::-1]), 2)
  np.testing.assert_array_equal(one.counts, two.counts)
  np.testing.assert_array_equal(one.entries, len(RECORDS) - 1 - two.entries)


def test_what_the_data_set_lacks_is_refused():
  source = make_source(RECORDS)
  with pytest.raises(ValueError, match=r'the longest has 13.*lower'):
    find(source, 14)
  with pytest.raises(ValueError, match='at least 1'):
    find(source, 4, 0)
  with pytest.raises(ValueError, match='8 px'):
    find(source, 4, resolution=16)


def test_windows_say_how_long_they_are():
  source = make_source(RECORDS)
  assert find(source, 4, 3).describe(10.0) == (
    'windows of 4 frames = 1.2 s at stride 3, from 1 shot; 2 more are too short'
  )
  assert find(source, 4).describe(25.0) == (
    'windows of 4 frames = 0.16 s, from 2 shots; 1 more is too short'
  )
  assert find(source, 1).describe(25.0) == 'single frames, from 3 shots'


def test_middle_order_gives_middles_first_and_every_window_once():
  found = find(make_source(RECORDS), 2)
  order = list(windowing.sampled_order(found, 'middle', 0))
  assert sorted(order[:3]) == [(0, 5), (1, 1), (2, 0)]
  assert sorted(order) == [
    (shot, start) for shot in range(3) for start in range(found.counts[shot])
  ]
  assert order == list(windowing.sampled_order(found, 'middle', 0))
  # Shots take turns as long as they have windows left.
  assert sorted(shot for shot, _ in order[3:5]) == [0, 1]


@pytest.mark.parametrize('sampling', ['random', 'middle', 'first'])
def test_sampled_orders_take_every_window_once_and_every_shot_first(sampling):
  found = find(make_source(RECORDS), 2)
  order = list(windowing.sampled_order(found, sampling, 3))
  assert sorted(order) == sorted(windowing.sampled_order(found, 'middle', 0))
  assert sorted(shot for shot, _ in order[:3]) == [0, 1, 2]
  again = list(windowing.sampled_order(found, sampling, 3))
  other = list(windowing.sampled_order(found, sampling, 4))
  assert order == again
  assert (order == other) == (sampling == 'first')
  if sampling == 'first':
    assert order[:3] == [(0, 0), (1, 0), (2, 0)]
