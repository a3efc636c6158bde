"""Files appear whole or not at all."""

import json

import numpy as np
import pytest

from vdm.common import files


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'a.txt'
  files.write_text(path, 'old')
  with pytest.raises(KeyError), files.replaced(path) as file:
    file.write(b'ne')
    raise KeyError
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_contents(tmp_path):
  files.write_json(tmp_path / 'a.json', {'b': [1, 2]}, sort_keys=True)
  assert json.loads((tmp_path / 'a.json').read_text()) == {'b': [1, 2]}
  files.write_npz(tmp_path / 'a.npz', {'x': np.arange(3)})
  with np.load(tmp_path / 'a.npz', allow_pickle=False) as arrays:
    np.testing.assert_array_equal(arrays['x'], [0, 1, 2])
  assert len(list(tmp_path.iterdir())) == 2


def test_objects_are_refused(tmp_path):
  with pytest.raises(ValueError, match='pickle'):
    files.write_npz(tmp_path / 'a.npz', {'x': np.array([{}])})
  assert not list(tmp_path.iterdir())
