"""Detects the coloured objects of a synthetic scene in each frame of a clip.

Objects of `data/synthetic/scenes.py` are saturated and their grounds nearly
grey, so each pixel is weighted by its chroma, the largest channel less the
smallest: over an anti-aliased edge this is the share of the pixel that the
object covers. Objects of one scene differ by 60 degrees of hue or more, which
separates them where they touch or occlude each other. Centres have the
coordinates of the scenes: x right, y down, the middle of the top left pixel at
(0.5, 0.5).

No property of a clip is taken for granted: blank frames and noise have no
objects.
"""

from typing import NamedTuple

import cv2
from etils.array_types import BoolArray, f32, FloatArray, IntArray, ui8
import numpy as np

from vdm.metrics import shape_names

MOST = 8  # Objects per frame, at most: the biggest.
SAME_HUE = 1 / 12  # Turns: half of what hues of one scene differ by.

_LEAST_SIGNAL = 48  # Grey levels by which an object stands out, at least.
_AREAS = (0.003, 0.25)  # Smallest and largest object, as shares of the frame.
_HUES = 72  # Bins of the hue circle.
_HUE_GAP = 8  # Bins (40 degrees): modes closer than that are one object.
_HUE_WITHIN = 6  # Bins (30 degrees): greatest distance from an object's hue.


class Objects(NamedTuple):
  """The objects of one frame, in any order.

  Attributes:
    centre: (x, y), px.
    size: radius of the disc of equal area, px.
    colour: mean of the inner pixels, grey levels.
    hue: hue of that colour, in turns.
    shape: second moment over squared area: 0.159 for a disc, 0.167 for a
      square, 0.192 for an equilateral triangle, whatever the size and angle.
    kind: index into `shapes.NAMES` of the outline that it resembles most.
    clear: how much more than the next one, see `shape_names`.
    reach: how far its outline is from the centre, [[left, up], [right, down]],
      px.
  """

  centre: FloatArray['k 2']
  size: FloatArray[' k']
  colour: FloatArray['k 3']
  hue: FloatArray[' k']
  shape: FloatArray[' k']
  kind: IntArray[' k']
  clear: FloatArray[' k']
  reach: FloatArray['k 2 2']


class Moments(NamedTuple):
  """One object of a frame: see `Objects`, and its share of each pixel."""

  centre: FloatArray['2']
  size: float
  colour: FloatArray['3']
  shape: float
  weight: FloatArray['h w']


def find(video: ui8['t h w 3'], turning: bool = False) -> list[Objects]:
  """Returns the objects of each frame of a clip.

  Args:
    video: the clip.
    turning: squares and triangles need not be upright.
  """
  chroma = video.max(-1).astype(np.float32) - video.min(-1)
  h, w = chroma.shape[1:]
  least = max(4, int(np.ceil(_AREAS[0] * h * w)))
  frames = []
  for image, signal, mask in zip(
    video, chroma, foreground(chroma, least), strict=True
  ):
    patches = _patches(mask, _hue_bins(cv2.blur(image, (3, 3))), least)
    frames.append(_describe(image, signal, patches, mask, turning))
  return frames


def foreground(signal: f32['t h w'], least: int) -> BoolArray['t h w']:
  """Returns the pixels of objects: at least half as strong as objects usually.

  Args:
    signal: how far each pixel stands out from the ground, grey levels.
    least: pixels of the smallest object.
  """
  # Smoothed, because the noise of a single pixel is no object.
  smooth = np.stack([cv2.blur(frame, (3, 3)) for frame in signal])
  peaks = np.partition(smooth.reshape(len(signal), -1), -least)[:, -least]
  usual = max(np.median(peaks), _LEAST_SIGNAL)
  # Half the usual signal of the clip, or of the frame where it is stronger.
  return smooth > 0.5 * np.maximum(peaks, usual)[:, None, None]


def hue_of(colour: FloatArray['*b 3']) -> FloatArray['*b']:
  """Returns the angle of colours about the grey axis, in turns, [0, 1)."""
  red, green, blue = np.moveaxis(np.asarray(colour, np.float64), -1, 0)
  angle = np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue)
  return angle / (2 * np.pi) % 1


def hue_distance(a: FloatArray['*b'], b: FloatArray['*b']) -> FloatArray['*b']:
  """Returns the distance of hues on the circle, in turns, 0 to 0.5."""
  return np.abs((a - b + 0.5) % 1 - 0.5)


def weighted_moments(
  image: ui8['h w 3'],
  signal: f32['h w'],
  patch: BoolArray['h w'],
  others: BoolArray['h w'] | None = None,
) -> Moments:
  """Measures one object of a frame.

  Pixels around the patch are weighted by how far they stand out, so blur
  changes neither centre nor area.

  Args:
    image: the frame.
    signal: how far each pixel stands out from the ground.
    patch: the object's pixels.
    others: other objects' pixels.
  """
  others = np.zeros(patch.shape, bool) if others is None else others
  patch = patch.astype(np.uint8)
  kernel = np.ones([5, 5], np.uint8)
  # As far as blur reaches around the patch, and no further.
  near = (cv2.dilate(patch, kernel) > 0) & ~others
  core = cv2.erode(patch, kernel, borderValue=0) > 0
  core = core if core.any() else patch > 0
  top = np.median(signal[core])
  far = signal[~near & ~others][::4]
  floor = np.median(far) if far.size else 0.0  # About the level of the noise.
  weight = np.clip((signal - floor) / max(top - floor, 1.0), 0, 1)
  if not weight[near].any():  # Noise: the patch does not stand out.
    weight = patch.astype(np.float32)
  y, x = np.nonzero(near)
  w = weight[near].astype(np.float64)
  total = w.sum()
  centre = np.array([(w * (x + 0.5)).sum(), (w * (y + 0.5)).sum()]) / total
  spread = (w * np.square(x + 0.5 - centre[0])).sum()
  spread += (w * np.square(y + 0.5 - centre[1])).sum()
  # Less what anti-aliasing over one pixel adds.
  shape = (spread - total / 6) / total**2
  size = np.sqrt(total / np.pi)
  return Moments(
    centre, size, image[core].mean(0), shape, np.where(near, weight, 0.0)
  )


def _hue_bins(image: np.ndarray) -> np.ndarray:
  return (hue_of(image) * _HUES).astype(int) % _HUES


def _bin_distance(a, b):
  """Returns the distance of bins on the hue circle."""
  return np.abs((a - b + _HUES // 2) % _HUES - _HUES // 2)


def _patches(mask, hues, least) -> list[np.ndarray]:
  """Returns the objects' pixels, bool [h w] each, the biggest first.

  In each connected patch, every hue with enough pixels is one object, even if
  another object in front of it divides it.
  """
  count, names = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
  found = []
  for name in range(1, count):
    patch = names == name
    if patch.sum() < least:
      continue
    for hue in _modes(hues[patch], least):
      found.append(patch & (_bin_distance(hues, hue) <= _HUE_WITHIN))
  areas = [patch.sum() for patch in found]
  most = _AREAS[1] * mask.size
  order = np.argsort(areas, kind='stable')[::-1]
  return [found[i] for i in order if least <= areas[i] <= most][:MOST]


def _modes(hues: np.ndarray, least: int) -> list[int]:
  """Returns the distinct hues that enough pixels have."""
  counts = np.bincount(hues, minlength=_HUES).astype(np.float64)
  around = sum(np.roll(counts, k) for k in range(-2, 3))
  modes = []
  for hue in np.argsort(around, kind='stable')[::-1]:
    if around[hue] < least / 2:
      break
    if all(_bin_distance(hue, mode) >= _HUE_GAP for mode in modes):
      modes.append(int(hue))
  return modes


def _describe(image, signal, patches, mask, turning) -> Objects:
  rows = []
  for patch in patches:
    found = weighted_moments(image, signal, patch, mask & ~patch)
    kind, clear = shape_names.name(
      found.weight, found.centre, found.size, turning
    )
    reach = _reach(found.weight, found.centre)
    rows.append((*found[:4], kind, clear, reach))
  centre, size, colour, shape, kind, clear, reach = (
    np.array([row[i] for row in rows]).reshape(len(rows), *dims)
    for i, dims in enumerate([(2,), (), (3,), (), (), (), (2, 2)])
  )
  kind, hue = kind.astype(int), hue_of(colour)
  return Objects(centre, size, colour, hue, shape, kind, clear, reach)


def _reach(weight, centre) -> np.ndarray:
  """Returns [[left, up], [right, down]]: see `Objects`.

  The widest row and the highest column have as many pixels' worth of the object
  on each side, whatever blurs the outline.
  """
  sides = []
  for axis, middle in zip((0, 1), centre):
    profile = weight.max(axis)
    before = np.clip(middle - np.arange(len(profile)), 0, 1)
    sides.append([(profile * before).sum(), (profile * (1 - before)).sum()])
  return np.array(sides).T
