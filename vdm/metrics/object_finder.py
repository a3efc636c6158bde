"""Finds the coloured objects of a scene in each frame of a clip.

Objects of `data/scenes.py` are saturated and their grounds nearly grey, so a
pixel counts by its chroma, the largest channel less the smallest: over an
anti-aliased edge it is the share of the pixel that the object covers. Objects
of one scene differ by 60 degrees of hue or more: where they touch or hide each
other, hue parts them. Centres have the coordinates of the scenes: x right, y
down, the top left pixel's middle at (0.5, 0.5).

Nothing here trusts a clip: one that is blank or noise has no objects.
"""

from typing import NamedTuple

import cv2
import numpy as np

MOST = 8  # Objects of a frame, at most: the biggest.

_LEAST_SIGNAL = 48  # Grey levels of chroma by which an object must stand out.
_AREAS = (0.003, 0.25)  # Share of the frame, at least and at most.
_HUES = 72  # Bins of the circle of hues.
_APART = 8  # Bins (40 degrees): hues nearer than that are one.
_WITHIN = 6  # Bins (30 degrees): how far a pixel is from its object's hue.


class Objects(NamedTuple):
  """The objects of one frame, in any order.

  Attributes:
    centre: [k 2] (x, y), px.
    size: [k] radius of the disc of equal area, px.
    colour: [k 3] mean of the inner pixels, grey levels.
    hue: [k] of that colour, in turns.
    shape: [k] second moment over area squared: 0.159 for a disc, 0.167 for a
      square, 0.192 for an even triangle, whatever their size and angle.
  """

  centre: np.ndarray
  size: np.ndarray
  colour: np.ndarray
  hue: np.ndarray
  shape: np.ndarray


def find(video: np.ndarray) -> list[Objects]:
  """Returns the objects of each frame of a clip, uint8 [t h w 3]."""
  t, h, w, _ = video.shape
  chroma = video.max(-1).astype(np.float32) - video.min(-1)
  # One pixel's noise is no object: they are sought in smoothed frames.
  smooth = np.stack([cv2.blur(frame, (3, 3)) for frame in chroma])
  least = max(4, int(np.ceil(_AREAS[0] * h * w)))
  peaks = np.partition(smooth.reshape(t, -1), -least, axis=1)[:, -least]
  usual = max(np.median(peaks), _LEAST_SIGNAL)
  frames = []
  for i in range(t):
    # Half the usual signal, or of this frame's, should it be the stronger.
    mask = smooth[i] > 0.5 * max(peaks[i], usual)
    hues = _hue_bins(cv2.blur(video[i], (3, 3)))
    patches = _patches(mask, hues, least)
    frames.append(_describe(video[i], chroma[i], patches, mask))
  return frames


def hue_of(colour: np.ndarray) -> np.ndarray:
  """Returns the angle of colours [... 3] about the grey axis, in [0, 1)."""
  red, green, blue = np.moveaxis(np.asarray(colour, np.float64), -1, 0)
  angle = np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue)
  return angle / (2 * np.pi) % 1


def hue_apart(a, b):
  """Returns the distance of two hues on the circle, in turns, 0 to 0.5."""
  return np.abs((a - b + 0.5) % 1 - 0.5)


def _hue_bins(image: np.ndarray) -> np.ndarray:
  return (hue_of(image) * _HUES).astype(int) % _HUES


def _patches(mask, hues, least) -> list[np.ndarray]:
  """Returns the objects' pixels, bool [h w] each, the biggest first.

  In each connected patch, every hue with enough pixels is one object: also
  where another one in front divides it.
  """
  count, names = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
  found = []
  for name in range(1, count):
    patch = names == name
    if patch.sum() < least:
      continue
    for hue in _modes(hues[patch], least):
      away = np.abs((hues - hue + _HUES // 2) % _HUES - _HUES // 2)
      found.append(patch & (away <= _WITHIN))
  areas = [patch.sum() for patch in found]
  most = _AREAS[1] * mask.size
  order = np.argsort(areas, kind='stable')[::-1]
  return [found[i] for i in order if least <= areas[i] <= most][:MOST]


def _modes(hues: np.ndarray, least: int) -> list[int]:
  """Returns the hues about which there are pixels enough, well apart."""
  counts = np.bincount(hues, minlength=_HUES).astype(np.float64)
  around = sum(np.roll(counts, k) for k in range(-2, 3))
  modes = []
  for hue in np.argsort(around, kind='stable')[::-1]:
    if around[hue] < least / 2:
      break
    if all(
      abs((hue - mode + _HUES // 2) % _HUES - _HUES // 2) >= _APART
      for mode in modes
    ):
      modes.append(int(hue))
  return modes


def _describe(image, chroma, patches, mask) -> Objects:
  rows = []
  for patch in patches:
    others = mask & ~patch
    rows.append(weigh(image, chroma, patch, others))
  centre, size, colour, shape = (
    np.array([row[i] for row in rows]).reshape(len(rows), *dims)
    for i, dims in enumerate([(2,), (), (3,), ()])
  )
  return Objects(centre, size, colour, hue_of(colour), shape)


def weigh(
  image: np.ndarray,
  signal: np.ndarray,
  patch: np.ndarray,
  others: np.ndarray | None = None,
) -> tuple[np.ndarray, float, np.ndarray, float]:
  """Returns (centre [2], radius, colour [3], shape) of an object.

  Around its patch each pixel counts by how far it stands out, so blur moves
  neither centre nor area.

  Args:
    image: frame, uint8 [h w 3].
    signal: how far each pixel stands out [h w].
    patch: the object's pixels, bool [h w].
    others: other objects' pixels, bool [h w].
  """
  others = np.zeros(patch.shape, bool) if others is None else others
  patch = patch.astype(np.uint8)
  kernel = np.ones([5, 5], np.uint8)
  # The reach of blur around the patch, but not of what lies beyond.
  near = (cv2.dilate(patch, kernel) > 0) & ~others
  core = cv2.erode(patch, kernel, borderValue=0) > 0
  core = core if core.any() else patch > 0
  top = np.median(signal[core])
  far = signal[~near & ~others][::4]
  floor = np.median(far) if far.size else 0.0  # Of noise, about the object.
  weight = np.clip((signal - floor) / max(top - floor, 1.0), 0, 1)
  y, x = np.nonzero(near)
  w = weight[near].astype(np.float64)
  total = w.sum()
  centre = np.array([(w * (x + 0.5)).sum(), (w * (y + 0.5)).sum()]) / total
  spread = (w * np.square(x + 0.5 - centre[0])).sum()
  spread += (w * np.square(y + 0.5 - centre[1])).sum()
  # Less what the edges, soft by a pixel, add.
  shape = (spread - total / 6) / total**2
  return centre, np.sqrt(total / np.pi), image[core].mean(0), shape
