"""Brings uint8 frames to a network's size as the reference codes do.

Bilinear without a filter, where output place i of n takes input place

  torch:    (i + 1/2) m / n - 1/2 (half-pixel centres, align_corners=False)
  tf1:      i m / n               (TensorFlow 1's resize_bilinear)
  corners:  i (m - 1) / (n - 1)   (Chainer's resize_images)

of m. Numbers of Fréchet video distances depend on which, by up to 1.25 px of
the output at 64 -> 224.
"""

import math

import jax.numpy as jnp
import numpy as np

RESIZES = ('torch', 'tf1', 'corners')
CROPS = ('squash', 'center')


def fit(videos, size, *, resize='torch', crop='squash'):
  """Resizes videos to size x size.

  Args:
    videos: [..., h, w, c], uint8 or float.
    size: of the output, px.
    resize: torch | tf1 | corners.
    crop: 'squash' both sides to the size, or resize the shorter one to it and
      take the middle ('center').

  Returns:
    float32 [..., size, size, c] in the range of the input.
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
  # Whatever an accelerator multiplies with by default.
  return jnp.einsum(
    '...hwc,ih,jw->...ijc',
    videos.astype(jnp.float32),
    vertical,
    horizontal,
    precision='highest',
  )


def weights(n_in, n_out, resize):
  """The matrix [n_out, n_in] of one axis, float32."""
  places = np.arange(n_out) * (n_in / n_out)
  if resize == 'torch':
    places = np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0.0)
  elif resize == 'corners':
    places = np.linspace(0.0, n_in - 1.0, n_out)
  below = np.floor(places).astype(int)
  above = np.minimum(below + 1, n_in - 1)
  share = places - below
  matrix = np.zeros((n_out, n_in))
  np.add.at(matrix, (np.arange(n_out), below), 1.0 - share)
  np.add.at(matrix, (np.arange(n_out), above), share)
  return matrix.astype(np.float32)
