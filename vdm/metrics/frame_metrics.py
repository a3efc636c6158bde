"""How close clips are to others, frame by frame: PSNR, SSIM and flicker.

Everything takes uint8 RGB clips [n t h w 3], reconstructions beside what they
are of, and gives float64 numbers, one a clip. Nothing reads a compressed file.

Flicker is what a frame-wise autoencoder adds where nothing moves. A pixel of
frame t + 1 is static where no channel of the *source* differs from frame t by
more than `STATIC` grey levels; flicker is the mean absolute change from t to
t + 1 over a clip's static pixels and their channels, in grey levels:

  flicker(x) = mean of |x[t+1] - x[t]| over static pixels.

The source's own flicker (noise, coding) stands beside it: a reconstruction
with less has smoothed, one with more shimmers.
"""

import cv2
import numpy as np

PEAK = 255.0  # Grey levels.
STATIC = 2  # Change of a channel, grey levels, up to which a pixel is static.
# The window and the constants of Wang et al. (2004), section III C.
SIGMA, RADIUS = 1.5, 5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(clips, references):
  """Peak signal-to-noise ratio, dB.

  Args:
    clips: uint8 [n t h w 3].
    references: the same.

  Returns:
    [n], from the mean squared error over the whole clip; inf where they are
    equal.

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


def ssim(clips, references):
  """Structural similarity (Wang et al., 2004), mean over frames and channels.

  Local moments are weighted by a Gaussian of deviation 1.5 px, cut off at 11 x
  11 and normalised (the moments of a population); only windows that lie
  wholly in the frame count. scikit-image calls it `structural_similarity(
  gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.

  Args:
    clips: uint8 [n t h w 3], frames of at least 11 x 11 px.
    references: the same.

  Returns:
    [n], at most 1.

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


def static_pixels(sources):
  """Where and when nothing moves: bool [n t-1 h w]; see the module."""
  _check(sources, sources)
  return np.stack([(_change(x) <= STATIC).all(axis=-1) for x in sources])


def flicker(clips, static):
  """Mean absolute change between successive frames where nothing moves.

  Args:
    clips: uint8 [n t h w 3]: sources or their reconstructions.
    static: `static_pixels` of the sources.

  Returns:
    [n], grey levels; NaN for a clip without static pixels.

  Raises:
    ValueError: the arrays are not of one shape.
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


def compare(clips, references):
  """All of these for reconstructions and what they are of.

  Args:
    clips: uint8 [n t h w 3].
    references: the same.

  Returns:
    {name: [n]}: 'psnr' dB, 'ssim', 'flicker_in' and 'flicker_out' of the
    references and the clips, grey levels, and 'static_share' of the pixels.
    Single frames have no flicker: NaN.
  """
  static = static_pixels(references)
  # Of no pixels at all the share is 0, not undefined.
  share = static.sum(axis=(1, 2, 3)) / max(1, static[0].size)
  return {
    'psnr': psnr(clips, references),
    'ssim': ssim(clips, references),
    'flicker_in': flicker(references, static),
    'flicker_out': flicker(clips, static),
    'static_share': share,
  }


def _change(clip):
  """|x[t+1] - x[t]| of uint8 [t h w c], as int16 [t-1 h w c]."""
  return np.abs(np.diff(clip.astype(np.int16), axis=0))


def _ssim(x, y):
  """Mean over the inner pixels and the channels of two frames [h w 3]."""
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
  """Gaussian average of [h w 3] where the window fits: [h-10 w-10 3]."""
  offsets = np.arange(-RADIUS, RADIUS + 1)
  window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
  window /= window.sum()
  y = cv2.sepFilter2D(x, -1, window, window)
  return y[RADIUS:-RADIUS, RADIUS:-RADIUS]


def _check(clips, references):
  for array in (clips, references):
    if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] != 3:
      raise ValueError(
        f'Clips are uint8 arrays [n t h w 3], not {array.dtype} {array.shape}.'
      )
  if clips.shape != references.shape:
    raise ValueError(
      f'Clips {clips.shape} and references {references.shape} differ in shape.'
    )
  if not clips.size:
    raise ValueError(f'There is nothing to compare in clips {clips.shape}.')
