"""Arrays come back for their key alone, and damage is no answer."""

import numpy as np

from vdm.evaluation import result_cache

KEY = {'step': 3, 'sizes': (1, 2), 'name': 'a'}
ARRAYS = {'x': np.arange(5), 'names': np.array(['a', 'bc'])}


def test_arrays_are_computed_once_for_a_key(tmp_path):
  calls = []

  def compute():
    calls.append(1)
    return ARRAYS

  for _ in range(3):
    found = result_cache.get(tmp_path / 'deep', KEY, compute)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
      np.testing.assert_array_equal(found[name], array)
  assert len(calls) == 1
  result_cache.get(tmp_path / 'deep', {**KEY, 'step': 4}, compute)
  assert len(calls) == 2
  names = sorted(path.name for path in (tmp_path / 'deep').iterdir())
  assert len(names) == 2 and all(name.endswith('.npz') for name in names)


def test_damaged_and_foreign_files_are_no_answer(tmp_path):
  result_cache.get(tmp_path, KEY, lambda: ARRAYS)
  (path,) = tmp_path.iterdir()
  assert result_cache.read(path, KEY) is not None
  assert result_cache.read(path, {**KEY, 'name': 'b'}) is None
  whole = path.read_bytes()
  for data in (b'', whole[: len(whole) // 2], b'no archive'):
    path.write_bytes(data)
    assert result_cache.read(path, KEY) is None
  found = result_cache.get(tmp_path, KEY, lambda: {'x': np.zeros(1)})
  assert found['x'].shape == (1,)
  assert result_cache.read(path, KEY)['x'].shape == (1,)
  np.savez(tmp_path / 'other.npz', x=np.array([{}], dtype=object))
  assert result_cache.read(tmp_path / 'other.npz', KEY) is None
