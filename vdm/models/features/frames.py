"""Resizes frames as the reference implementations of networks do.

Bilinear without a filter, where position i of n in the output is position

  torch:    (i + 1/2) m / n - 1/2 (half-pixel centres, align_corners=False)
  tf1:      i m / n               (TensorFlow 1's resize_bilinear)
  corners:  i (m - 1) / (n - 1)   (Chainer's resize_images)

of m in the input. Fréchet video distances depend on the choice: positions
differ by up to 1.25 px of the output at 64 -> 224.
"""

import math

from etils.array_types import Array, FloatArray
import jax.numpy as jnp
import numpy as np

RESIZES = ('torch', 'tf1', 'corners')
CROPS = ('squash', 'center')


def fit(
  videos: Array['*b h w c'],
  size: int,
  *,
  resize: str = 'torch',
  crop: str = 'squash',
) -> FloatArray['*b size size c']:
  """Resizes videos to size x size, as float32 in the range of the input.

  Args:
    videos: uint8 or float.
    size: of the output, px.
    resize: torch | tf1 | corners.
    crop: 'squash' resizes both sides to the size; 'center' resizes the shorter
      side to it and crops the longer one.
  """
  if resize not in RESIZES or crop not in CROPS:
    raise ValueError(
      f'resize is one of {", ".join(RESIZES)} and crop one of '
      f'{", ".join(CROPS)}, not {resize!r} and {crop!r}.'
    )
  h, w = videos.shape[-3:-1]
  rows = columns = size
  if crop == 'center':
    scale = size / min(h, w)
    rows = size if h <= w else math.ceil(h * scale)
    columns = size if w <= h else math.ceil(w * scale)
  top, left = (rows - size) // 2, (columns - size) // 2
  vertical = weights(h, rows, resize)[top : top + size]
  horizontal = weights(w, columns, resize)[left : left + size]
  # Not the lower default precision of an accelerator.
  return jnp.einsum(
    '...hwc,ih,jw->...ijc',
    videos.astype(jnp.float32),
    vertical,
    horizontal,
    precision='highest',
  )


def weights(n_in: int, n_out: int, resize: str) -> FloatArray['n_out n_in']:
  """Returns the float32 interpolation matrix of one axis."""
  positions = np.arange(n_out) * (n_in / n_out)
  if resize == 'torch':
    positions = np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0.0)
  elif resize == 'corners':
    positions = np.linspace(0.0, n_in - 1.0, n_out)
  below = np.floor(positions).astype(int)
  above = np.minimum(below + 1, n_in - 1)
  share = positions - below
  matrix = np.zeros((n_out, n_in))
  np.add.at(matrix, (np.arange(n_out), below), 1.0 - share)
  np.add.at(matrix, (np.arange(n_out), above), share)
  return matrix.astype(np.float32)
