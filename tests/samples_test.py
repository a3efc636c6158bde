"""What is written of generated videos."""

import numpy as np

from vdm.media import samples


def test_samples_are_written_for_machines_and_for_people(tmp_path):
  videos = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), 'u1')
  samples.write(
    tmp_path, videos, [1, -1, 0], ['a', 'b'], [7, 8, 9], 25.0, each=True
  )
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {
    'samples.npz',
    'sheet.png',
    'grid.mp4',
    *(f'seed_{i:06d}.mp4' for i in (7, 8, 9)),
  }
  with np.load(tmp_path / 'samples.npz', allow_pickle=False) as file:
    np.testing.assert_array_equal(file['videos'], videos)
    assert list(file['labels']) == [1, -1, 0]
    assert list(file['label_names']) == ['a', 'b']
