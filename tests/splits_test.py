"""Groups and sides."""

from vdm.preparation import splits


def test_group_names():
  assert splits.group_name('a/b_c01.avi', '') == 'a/b_c01.avi'
  assert splits.group_name('a/b_c01.avi', r'^(.*)_c\d+') == 'a/b'
  assert splits.group_name('a/b_c01.avi', r'^[^/]+') == 'a'
  assert splits.group_name('x.avi', r'^(.*)_c\d+') == 'x.avi'


def test_pairs_join_groups():
  names = ['c', 'a', 'b', 'a', 'd', 'e']
  assert splits.merge(names, []) == names
  merged = splits.merge(names, [(0, 1), (3, 2)])
  assert merged == ['a', 'a', 'a', 'a', 'd', 'e']


def test_sides_go_by_content():
  groups = [f'g{i // 2}' for i in range(40)]
  digests = [f'{(7 * i) % 40:03d}' for i in range(40)]
  chosen = splits.held_out(groups, digests, 0.2)
  assert len(chosen) == 4
  # Other names and another order: the same content is held out.
  renamed = splits.held_out([f'h{g}' for g in groups][::-1], digests[::-1], 0.2)
  assert renamed == {f'h{g}' for g in chosen}
  # One more group moves none across but the last one chosen.
  more = splits.held_out([*groups, 'new'], [*digests, '0005'], 0.2)
  assert len(chosen - more) <= 1


def test_copies_stand_on_one_side():
  groups, digests = ['a', 'b', 'copy of a', 'c'], ['1', '2', '1', '3']
  assert splits.held_out(groups, digests, 0.1) == {'a', 'copy of a'}


def test_one_recording_has_no_sides():
  assert splits.held_out(['a', 'a'], ['1', '2'], 0.5) is None
  assert splits.held_out(['a', 'b'], ['1', '1'], 0.5) is None
  assert splits.held_out(['a', 'b'], ['1', '2'], 0.0) is None
  assert splits.held_out(['a', 'b'], ['1', '2'], 1.0) == {'a'}
