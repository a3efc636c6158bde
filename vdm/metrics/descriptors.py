"""Descriptors of a clip, without learned weights.

Sets of clips are compared by the distribution of these vectors. Each has a few
dozen dimensions, so that a few hundred clips are enough:

  motion      speeds, accelerations and directions of points that are tracked
              along the flow (after FVMD, Liu et al. 2024)
  spectrum    log power in octaves of temporal and spatial frequency
  texture     log power of single frames in octaves of spatial frequency: mean
              and mean deviation over the frames
  appearance  distributions of hue, saturation and value: mean and mean
              deviation over the frames

The deviations are included so that a frozen clip is never the closest to the
real ones.
"""

import cv2
from etils.array_types import FloatArray, ui8
import numpy as np

from vdm.metrics import directions
from vdm.metrics import optical_flow

NAMES = ('motion', 'spectrum', 'texture', 'appearance')

_SIDE = 64  # Px of the shorter side: frames are shrunk for spectra and colours.
_ROUNDING = 1 / 12  # Variance of rounding to a grey level.
_SPEEDS = np.arange(-4.0, 7.0)  # Bin edges, log2 px, also of accelerations.
_TIME = (0.0, 0.25, 0.5, 1.0)  # Band edges, in shares of the highest frequency.
_SPACE = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_COLOURS = (16, 8, 8)  # Bins of hue, saturation, value.


def describe(
  video: ui8['t h w 3'], flow: optical_flow.Flow
) -> dict[str, FloatArray[' d']]:
  """Returns the descriptors of a clip of at least 3 frames, by name.

  Args:
    video: the clip.
    flow: its optical flow.
  """
  small = np.stack([_shrink(image) for image in video])
  grey = np.stack([cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in small])
  spectrum, texture = spectra(grey)
  return {
    'motion': motion(flow),
    'spectrum': spectrum,
    'texture': texture,
    'appearance': appearance(small),
  }


def motion(flow: optical_flow.Flow) -> FloatArray['32']:
  """Returns shares of speeds [12], accelerations [12] and directions [8].

  Speeds and accelerations are counted in octaves from 1/16 to 64 px at 128 px.
  The shares of directions are of the distance travelled; they change where a
  clip is played backwards.
  """
  velocity, inside = optical_flow.point_tracks(flow)
  both = inside[1:] & inside[:-1]
  speed = optical_flow.lengths(velocity[inside])
  acceleration = optical_flow.lengths(np.diff(velocity, axis=0)[both])
  travel = np.bincount(
    directions.nearest(velocity)[inside], weights=speed, minlength=8
  )
  # Less than a sixteenth of a pixel per frame has no direction.
  still = 2 ** _SPEEDS[0] * max(len(speed), 1)
  return np.concatenate(
    [_octaves(speed), _octaves(acceleration), travel / max(travel.sum(), still)]
  )


def spectra(
  grey: ui8['t h w'],
) -> tuple[FloatArray['24'], FloatArray['12']]:
  """Returns 'spectrum' and 'texture' of a clip in grey levels.

  The first is the log of the mean power of the cosine transform (DCT-II) over
  space and time in 4 x 6 bands. The second is that of the frames' transforms in
  6 bands: mean and mean deviation over the frames.
  """
  t, h, w = grey.shape
  frames = cosines(h) @ grey.astype(np.float64) @ cosines(w).T
  space = _space_bands(h, w)
  power = np.square(frames).reshape(t, -1)
  bands = np.stack([_sums(space, row) for row in power])
  texture = _mean_and_deviation(np.log(bands / _counts(space) + _ROUNDING))

  power = np.square(cosines(t) @ frames.reshape(t, -1))
  time = _bands(np.arange(t) / t, _TIME)
  sums = np.zeros((len(_TIME), len(_SPACE)))
  np.add.at(sums, time, [_sums(space, row) for row in power])
  counts = np.bincount(time, minlength=len(_TIME))[:, None] * _counts(space)
  spectrum = np.log(sums / np.maximum(counts, 1) + _ROUNDING)
  return spectrum.reshape(-1), texture


def appearance(video: ui8['t h w 3']) -> FloatArray['64']:
  """Returns shares of hues [16], saturations [8] and values [8] and deviations.

  The deviations [32] are those of the shares over the frames. The hue of a
  pixel is weighted by its saturation and value: black has none.
  """
  hsv = np.stack([cv2.cvtColor(x, cv2.COLOR_RGB2HSV_FULL) for x in video])
  hsv = hsv.reshape(len(video), -1, 3).astype(np.float64)
  vivid = hsv[..., 1] * hsv[..., 2] / 255**2
  frame = np.arange(len(video))[:, None]
  shares = []
  for channel, bins in enumerate(_COLOURS):
    bin_of = frame * bins + (hsv[..., channel] * bins / 256).astype(int)
    weight = vivid if channel == 0 else np.ones_like(vivid)
    counts = np.bincount(
      bin_of.reshape(-1),
      weights=weight.reshape(-1),
      minlength=len(video) * bins,
    ).reshape(len(video), bins)
    shares.append(counts / hsv.shape[1])
  return _mean_and_deviation(np.concatenate(shares, axis=1))


def cosines(n: int) -> FloatArray['n n']:
  """Returns the orthonormal cosine transform (DCT-II), a row a frequency."""
  k, i = np.arange(n)[:, None], np.arange(n)[None]
  rows = np.cos(np.pi * k * (i + 0.5) / n) * np.sqrt(2 / n)
  rows[0] = np.sqrt(1 / n)
  return rows


def _shrink(image: np.ndarray) -> np.ndarray:
  h, w = image.shape[:2]
  if min(h, w) <= _SIDE:
    return image
  size = [round(side * _SIDE / min(h, w)) for side in (w, h)]
  return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _mean_and_deviation(frames: np.ndarray) -> np.ndarray:
  """Returns mean and mean deviation over frames [t d], concatenated [2 d]."""
  mean = frames.mean(0)
  return np.concatenate([mean, np.abs(frames - mean).mean(0)])


def _octaves(values: np.ndarray) -> np.ndarray:
  """Returns the shares [12] of values in the bins of `_SPEEDS` and outside."""
  bins = np.searchsorted(_SPEEDS, np.log2(np.maximum(values, 2.0**-10)))
  counts = np.bincount(bins, minlength=len(_SPEEDS) + 1)
  return counts / max(len(values), 1)


def _bands(frequency: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
  """Returns the band of each frequency, a share of the highest one."""
  return np.searchsorted(edges, frequency, side='left').clip(0, len(edges) - 1)


def _space_bands(h: int, w: int) -> np.ndarray:
  rows, columns = np.arange(h)[:, None] / h, np.arange(w)[None] / w
  return _bands(np.hypot(rows, columns), _SPACE)


def _sums(bands: np.ndarray, power: np.ndarray) -> np.ndarray:
  return np.bincount(
    bands.reshape(-1), weights=power.reshape(-1), minlength=len(_SPACE)
  )


def _counts(bands: np.ndarray) -> np.ndarray:
  return np.maximum(np.bincount(bands.reshape(-1), minlength=len(_SPACE)), 1)
