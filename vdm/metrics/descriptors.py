"""Vectors that describe a clip, to compare sets of clips by.

No learned weights. Each is a few dozen numbers, so that a few hundred clips
say something about their distribution:

  motion      speeds, accelerations and directions of points that are followed
              along the flow (after FVMD, Liu et al. 2024)
  spectrum    log power in octaves of temporal and spatial frequency
  texture     log power of single frames in octaves of spatial frequency, and
              how far it strays within the clip
  appearance  distributions of hue, saturation and value, and how far they
              stray within the clip

What a clip strays from its own mean is in it so that a clip which stands still
is never nearest to the real ones.
"""

import cv2
import numpy as np

from vdm.metrics import optical_flow

NAMES = ('motion', 'spectrum', 'texture', 'appearance')

_SIDE = 64  # Px: frames are brought to this size for spectra and colours.
# Variance of a value that was rounded to a grey level.
_ROUNDING = 1 / 12
_SPEEDS = np.arange(-4.0, 7.0)  # Borders of speeds and accelerations, log2 px.
_TIME = (0.0, 0.25, 0.5, 1.0)  # Borders, in shares of the highest frequency.
_SPACE = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_COLOURS = (16, 8, 8)  # Bins of hue, saturation, value.


def describe(
  video: np.ndarray, flow: optical_flow.Flow
) -> dict[str, np.ndarray]:
  """Returns the vectors of a clip, by name.

  Args:
    video: uint8 [t h w 3], t at least 3.
    flow: of the clip.
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


def motion(flow: optical_flow.Flow) -> np.ndarray:
  """Returns [32]: shares of speeds, of accelerations, of ways by direction.

  Speeds and accelerations lie in octaves from 1/16 to 64 px at 128. The last
  eight are the ways gone in eight directions, as shares of all, and see a
  clip that is played backwards.
  """
  velocity, inside = optical_flow.chains(flow)
  both = inside[1:] & inside[:-1]
  speed = optical_flow.lengths(velocity[inside])
  turned = optical_flow.lengths(np.diff(velocity, axis=0)[both])
  eighth = np.arctan2(velocity[..., 1], velocity[..., 0]) / (np.pi / 4)
  eighth = np.rint(eighth).astype(int) % 8
  ways = np.bincount(eighth[inside], weights=speed, minlength=8)
  # Less than a sixteenth of a pixel a frame is no direction.
  still = 2 ** _SPEEDS[0] * max(len(speed), 1)
  return np.concatenate(
    [_octaves(speed), _octaves(turned), ways / max(ways.sum(), still)]
  )


def spectra(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns 'spectrum' [24] and 'texture' [12] of a clip.

  Log of the mean power of the cosine transform (DCT-II), over space and time,
  in 4 x 6 bands; and of single frames' transforms in 6 bands, mean and mean
  deviation over the frames.

  Args:
    grey: uint8 [t h w].
  """
  t, h, w = grey.shape
  frames = _cosines(h) @ grey.astype(np.float64) @ _cosines(w).T
  space = _space_bands(h, w)
  power = np.square(frames).reshape(t, -1)
  bands = np.stack([_sums(space, row) for row in power])
  texture = _mean_and_stray(np.log(bands / _counts(space) + _ROUNDING))

  power = np.square(_cosines(t) @ frames.reshape(t, -1))
  time = _bands(np.arange(t) / t, _TIME)
  sums = np.zeros((len(_TIME), len(_SPACE)))
  np.add.at(sums, time, [_sums(space, row) for row in power])
  counts = np.bincount(time, minlength=len(_TIME))[:, None] * _counts(space)
  spectrum = np.log(sums / np.maximum(counts, 1) + _ROUNDING)
  return spectrum.reshape(-1), texture


def appearance(video: np.ndarray) -> np.ndarray:
  """Returns [64]: shares of hues, saturations and values, and their straying.

  A pixel's hue counts by its saturation and value: black has none.

  Args:
    video: uint8 [t h w 3].
  """
  hsv = np.stack([cv2.cvtColor(x, cv2.COLOR_RGB2HSV_FULL) for x in video])
  hsv = hsv.reshape(len(video), -1, 3).astype(np.float64)
  vivid = hsv[..., 1] * hsv[..., 2] / 255**2
  frame = np.arange(len(video))[:, None]
  shares = []
  for channel, bins in enumerate(_COLOURS):
    place = frame * bins + (hsv[..., channel] * bins / 256).astype(int)
    weight = vivid if channel == 0 else np.ones_like(vivid)
    counts = np.bincount(
      place.reshape(-1),
      weights=weight.reshape(-1),
      minlength=len(video) * bins,
    ).reshape(len(video), bins)
    shares.append(counts / hsv.shape[1])
  return _mean_and_stray(np.concatenate(shares, axis=1))


def _shrink(image: np.ndarray) -> np.ndarray:
  h, w = image.shape[:2]
  if min(h, w) <= _SIDE:
    return image
  return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _mean_and_stray(frames: np.ndarray) -> np.ndarray:
  """Returns mean and mean deviation over the frames [t d]: [2 d]."""
  mean = frames.mean(0)
  return np.concatenate([mean, np.abs(frames - mean).mean(0)])


def _octaves(values: np.ndarray) -> np.ndarray:
  """Returns the shares [12] of values below, between and above the borders."""
  place = np.searchsorted(_SPEEDS, np.log2(np.maximum(values, 2.0**-10)))
  counts = np.bincount(place, minlength=len(_SPEEDS) + 1)
  return counts / max(len(values), 1)


def _cosines(n: int) -> np.ndarray:
  """Returns the orthonormal cosine transform (DCT-II) [n n]."""
  k, i = np.arange(n)[:, None], np.arange(n)[None]
  rows = np.cos(np.pi * k * (i + 0.5) / n) * np.sqrt(2 / n)
  rows[0] = np.sqrt(1 / n)
  return rows


def _bands(frequency: np.ndarray, borders) -> np.ndarray:
  """Returns the band of each frequency, in shares of the highest one."""
  return np.searchsorted(borders, frequency, side='left').clip(
    0, len(borders) - 1
  )


def _space_bands(h: int, w: int) -> np.ndarray:
  rows, columns = np.arange(h)[:, None] / h, np.arange(w)[None] / w
  return _bands(np.hypot(rows, columns), _SPACE)


def _sums(bands: np.ndarray, power: np.ndarray) -> np.ndarray:
  return np.bincount(
    bands.reshape(-1), weights=power.reshape(-1), minlength=len(_SPACE)
  )


def _counts(bands: np.ndarray) -> np.ndarray:
  return np.maximum(np.bincount(bands.reshape(-1), minlength=len(_SPACE)), 1)
