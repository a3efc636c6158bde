"""PSNR, SSIM and flicker of clips against references.

Everything takes uint8 RGB clips [n t h w 3], reconstructions and their sources
for instance, and returns one float64 per clip. Nothing reads a compressed file.

Flicker is what a frame-wise autoencoder adds where nothing moves. A pixel of
frame t + 1 is static where no channel of the *source* differs from frame t by
more than `STATIC` grey levels; flicker is the mean absolute change from t to
t + 1 over a clip's static pixels and their channels, in grey levels:

  flicker(x) = mean of |x[t+1] - x[t]| over static pixels.

It is compared with the flicker of the source itself (noise, coding): a
reconstruction with less has been smoothed, one with more shimmers.
"""

import cv2
from etils.array_types import BoolArray, FloatArray, ui8
import numpy as np

from vdm.metrics import rgb_clips

PEAK = 255.0  # Grey levels.
STATIC = 2  # Greatest change of a channel of a static pixel, grey levels.
# The window and the constants of Wang et al. (2004), section III C.
SIGMA, RADIUS = 1.5, 5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(
  clips: ui8['n t h w 3'], references: ui8['n t h w 3']
) -> FloatArray[' n']:
  """Returns the peak signal-to-noise ratios, dB.

  They are those of the mean squared error over the whole clip; inf where a clip
  equals its reference.

  Raises:
    ValueError: the arrays are not clips of one shape.
  """
  _check(clips, references)
  mse = [
    np.square(x.astype(np.float64) - y).mean()
    for x, y in zip(clips, references)
  ]
  with np.errstate(divide='ignore'):
    return 10.0 * np.log10(PEAK**2 / np.asarray(mse))


def nearest_psnr(
  clips: ui8['n t h w 3'], references: ui8['m t h w 3']
) -> float:
  """Returns the mean PSNR of each clip with its nearest reference, dB."""
  references = references.astype(np.float64)
  errors = [
    np.square(references - clip).mean((1, 2, 3, 4)).min() for clip in clips
  ]
  return float(np.mean(10 * np.log10(PEAK**2 / np.maximum(errors, 1e-3))))


def ssim(
  clips: ui8['n t h w 3'], references: ui8['n t h w 3']
) -> FloatArray[' n']:
  """Returns the structural similarities, means over frames and channels.

  The moments (Wang et al., 2004) are weighted by a normalised Gaussian of
  deviation 1.5 px, cut off at 11 x 11, without Bessel's correction; only
  windows inside the frame count. In scikit-image it is `structural_similarity(
  gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.

  Args:
    clips: frames of at least 11 x 11 px.
    references: the same.

  Raises:
    ValueError: the arrays are not clips of one shape, or too small.
  """
  _check(clips, references)
  if min(clips.shape[2:4]) <= 2 * RADIUS:
    raise ValueError(
      f'SSIM needs frames of at least {2 * RADIUS + 1} px, not '
      f'{clips.shape[2]} x {clips.shape[3]}.'
    )
  return np.asarray(
    [
      np.mean([_ssim(x, y) for x, y in zip(clip, reference)])
      for clip, reference in zip(clips, references)
    ]
  )


def static_pixels(sources: ui8['n t h w 3']) -> BoolArray['n t-1 h w']:
  """Returns where nothing moves from a frame to the next; see the module."""
  _check(sources, sources)
  return np.stack([(_change(x) <= STATIC).all(axis=-1) for x in sources])


def flicker(
  clips: ui8['n t h w 3'], static: BoolArray['n t-1 h w']
) -> FloatArray[' n']:
  """Returns the mean change between consecutive frames where nothing moves.

  Args:
    clips: sources or their reconstructions.
    static: `static_pixels` of the sources.

  Returns:
    Flicker in grey levels; NaN for a clip without static pixels.

  Raises:
    ValueError: the shapes do not match.
  """
  _check(clips, clips)
  n, t, h, w, _ = clips.shape
  if static.shape != (n, t - 1, h, w):
    raise ValueError(
      f'Static pixels {static.shape} are not those of clips {clips.shape}.'
    )
  return np.asarray(
    [
      _change(x)[still].mean() if still.any() else np.nan
      for x, still in zip(clips, static)
    ]
  )


def compare(
  clips: ui8['n t h w 3'], references: ui8['n t h w 3']
) -> dict[str, FloatArray[' n']]:
  """Returns all of these metrics of reconstructions and their sources.

  Returns:
    'psnr', dB; 'ssim'; 'flicker_in' of the references and 'flicker_out' of the
    clips, grey levels, NaN of single frames; 'static_share' of the pixels.
  """
  static = static_pixels(references)
  # Single frames have a share of 0, not an undefined one.
  share = static.sum(axis=(1, 2, 3)) / max(1, static[0].size)
  return {
    'psnr': psnr(clips, references),
    'ssim': ssim(clips, references),
    'flicker_in': flicker(references, static),
    'flicker_out': flicker(clips, static),
    'static_share': share,
  }


def _change(clip):
  """Returns |x[t+1] - x[t]| of uint8 [t h w c], int16 [t-1 h w c]."""
  return np.abs(np.diff(clip.astype(np.int16), axis=0))


def _ssim(x, y):
  """Returns the mean SSIM over pixels and channels of two frames [h w 3]."""
  x, y = x.astype(np.float64), y.astype(np.float64)
  mean_x, mean_y = _local_mean(x), _local_mean(y)
  var_x = _local_mean(x * x) - mean_x**2
  var_y = _local_mean(y * y) - mean_y**2
  covariance = _local_mean(x * y) - mean_x * mean_y
  return np.mean(
    (2 * mean_x * mean_y + C1)
    * (2 * covariance + C2)
    / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
  )


def _local_mean(x):
  """Returns the Gaussian average of [h w 3] inside: [h-10 w-10 3]."""
  offsets = np.arange(-RADIUS, RADIUS + 1)
  window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
  window /= window.sum()
  y = cv2.sepFilter2D(x, -1, window, window)
  return y[RADIUS:-RADIUS, RADIUS:-RADIUS]


def _check(clips, references):
  for array in (clips, references):
    rgb_clips.check(array)
  if clips.shape != references.shape:
    raise ValueError(
      f'Clips {clips.shape} and references {references.shape} differ in shape.'
    )
  if not clips.size:
    raise ValueError(f'There is nothing to compare in clips {clips.shape}.')
