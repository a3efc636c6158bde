"""Reads videos that are stored as arrays, such as samples.npz."""

import os

import numpy as np


def load(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns the arrays of an .npz file, `videos` uint8 [n t h w 3] among them.

  A single video [t h w 3] becomes a batch of one.

  Raises:
    ValueError: it is no such file.
  """
  loaded = np.load(file, allow_pickle=False)
  # NumPy also opens a single array, and any zip: its members are then bytes.
  if not isinstance(loaded, np.lib.npyio.NpzFile):
    raise ValueError('it is no .npz but a single array')
  with loaded as arrays:
    if 'videos' not in arrays.files:
      names = ', '.join(arrays.files)[:200]
      raise ValueError(f'it has no array `videos`, only {names or "nothing"}')
    known = ('videos', 'labels', 'label_names')
    found = {name: arrays[name] for name in known if name in arrays.files}
  videos = found['videos']
  if not isinstance(videos, np.ndarray):
    raise ValueError('it is a zip but no .npz')
  if videos.ndim == 4:
    videos = found['videos'] = videos[None]
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      f'it holds {videos.dtype} {videos.shape}, not uint8 [n t h w 3]'
    )
  return found
