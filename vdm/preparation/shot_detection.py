"""Detects where a video's shots start and end, from thumbnails of its frames.

A hard cut is a step between two frames that stands out from the steps around
it and persists between frames that are two and three apart, so that a flash,
one odd frame or fast motion is none. The two frames must also be as different
as unrelated pictures are, in distance and in structure: a lamp that is switched
on or a step of exposure changes every pixel and keeps the edges. A gradual
transition (fade, dissolve) is a run of frames that lie on a straight line
between its ends, in equal steps, where the ends have little structure in
common: motion leaves that line, and a change of exposure keeps the structure.

Distances are mean absolute differences of RGB values, 0 to 255. What counts as
far is relative to what the pictures can differ by: two dark shots are only a
few grey levels apart, and so is everything else in them. A hard cut loses no
frame; of a gradual transition the mixed frames belong to no shot.
"""

import dataclasses

import cv2
from etils.array_types import BoolArray, FloatArray, ui8
import numpy as np

HEIGHT, WIDTH = 18, 32  # Px of thumbnails; each a mean over its area.

_AROUND = 5  # Steps on either side that a cut is compared with.
_LENGTHS = (6, 8, 12, 16, 24, 32, 48)  # Frames from end to end of a transition.
_LINE = 0.13  # Greatest distance from the straight line, of that of the ends.
_PURE = 0.03  # Share of the other shot below which a frame is of one.
_ALIKE = 0.5  # Ends that correlate more are of one shot.
_SHIFT = 4  # Px that two frames of one shot may have jumped, each way.
_USUAL = 48.0  # Grey levels that unrelated pictures of full contrast differ by.
_LEAST = 4.0  # Grey levels below which nothing counts as a change of shot.
_DIFFERENT = 0.28  # Share of the difference of unrelated pictures, of a cut.
_SAME = 0.55  # Images that share more of their structure are of one shot.
_BLACK = 6.0  # Grey levels of black bars, at most.
_WINDOW = (5, 5)  # Px over which the structure of two pictures is compared.
_STRUCTURE = 0.6  # Grey levels that a window's values vary by, at least.
_MIN_WINDOWS = 60  # Fewer windows with structure count as less alike.
_CHUNK = 2048  # Frames compared at once, which bounds the memory.


@dataclasses.dataclass(frozen=True)
class Transition:
  """From one shot to the next: frames `start` to `stop` belong to neither.

  A hard cut has `start == stop`, the first frame of the new shot.
  """

  start: int
  stop: int

  @property
  def is_cut(self) -> bool:
    return self.start == self.stop


def find_transitions(
  images: ui8['n h w 3'], *, distance: float, ratio: float
) -> list[Transition]:
  """Returns the transitions of a video, in order, none overlapping.

  Args:
    images: thumbnails of all its frames.
    distance: least distance of two shots' frames, grey levels; in proportion
      less where the pictures have little contrast.
    ratio: of a hard cut to the second largest of the steps around it, at least
      (not the largest, so that two cuts in a row do not hide each other).
  """
  cuts = find_cuts(images, distance=distance, ratio=ratio)
  gradual = find_gradual(images, distance=distance)
  # What is detected as both is a cut: a few frames around it lie on a line.
  gradual = [
    t for t in gradual if not any(t.start - 1 <= c <= t.stop for c in cuts)
  ]
  found = [Transition(cut, cut) for cut in cuts] + gradual
  return sorted(found, key=lambda transition: transition.start)


def find_cuts(
  images: ui8['n h w 3'], *, distance: float, ratio: float
) -> list[int]:
  """Returns the first frames after hard cuts, ascending.

  See `find_transitions` for the arguments.
  """
  n = len(images)
  if n < 2:
    return []
  steps = {gap: _distances(images, gap) for gap in (1, 2, 3)}
  # Entry i is the step from frame i to i + 1.
  one = steps[1]
  padded = np.pad(one, _AROUND)
  around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1)
  others = np.delete(around, _AROUND, axis=1)
  others = np.partition(others, -2, axis=1)[:, -2]
  # Two and three frames apart, across the same place. Near the ends of the
  # video some pairs do not exist: they are infinitely far apart.
  across = np.min(
    [one, *_across(steps[2], 2, len(one)), *_across(steps[3], 3, len(one))],
    axis=0,
  )
  stands_out = (one >= ratio * np.maximum(others, 1.0)) & (across >= _LEAST)
  return [
    int(i) + 1
    for i in np.flatnonzero(stands_out)
    if _are_of_two_shots(images[i], images[i + 1], across[i], distance)
  ]


def find_gradual(
  images: ui8['n h w 3'], *, distance: float
) -> list[Transition]:
  """Returns fades and dissolves, in order, none overlapping.

  See `find_transitions` for the arguments.
  """
  n = len(images)
  mixed = np.zeros(n, bool)
  for length in _LENGTHS:
    for first in range(0, n - length, _CHUNK):
      part = images[first : first + _CHUNK + length]
      for start in np.flatnonzero(_are_blends(part, length, distance)):
        mixed[first + start + 1 : first + start + length] = True
  edges = np.flatnonzero(np.diff(mixed, prepend=False, append=False))
  found = [_trimmed(images, a, b) for a, b in edges.reshape(-1, 2).tolist()]
  return [transition for transition in found if transition]


def _trimmed(
  images: ui8['n h w 3'], start: int, stop: int
) -> Transition | None:
  """Returns the part of a run of frames that is a mixture of its ends."""
  flat = images[start - 1 : stop + 1].astype(np.float32)
  flat = flat.reshape(len(flat), -1)
  line = flat[-1] - flat[0]
  shares = (flat[1:-1] - flat[0]) @ line / max(float(line @ line), 1.0)
  mixed = np.flatnonzero((shares > _PURE) & (shares < 1 - _PURE))
  if not mixed.size:
    return None
  return Transition(start + int(mixed[0]), start + int(mixed[-1]) + 1)


def _are_blends(
  images: ui8['n h w 3'], length: int, distance: float
) -> BoolArray[' n-length']:
  """Returns which frames start a blend into the frame `length` later."""
  m = len(images) - length
  if m < 1:
    return np.zeros(0, bool)
  flat = images.reshape(len(images), -1).astype(np.float32)
  first, last = flat[:m], flat[length:]
  # Without the change of the mean, which a change of exposure makes too.
  change = last - first
  far = np.abs(change - change.mean(1, keepdims=True)).mean(1)
  # Of two unrelated normal distributions, E|X - Y| is 0.8 of this.
  contrast = flat.std(1)
  unrelated = 0.8 * np.hypot(contrast[:m], contrast[length:])
  chosen = np.flatnonzero(far >= _least_distance(distance, unrelated))
  # The middle first: most of what moves leaves the line there.
  for part in (length // 2, length // 4, length - length // 4):
    share = part / length
    begin, end = first[chosen], last[chosen]
    apart = flat[chosen + part] - ((1 - share) * begin + share * end)
    good = np.abs(apart).mean(1) <= _LINE * np.abs(end - begin).mean(1)
    # A change of light alone makes a line that is long for what else moves in
    # a picture of low contrast.
    apart -= apart.mean(1, keepdims=True)
    own = far[chosen]
    good &= (own >= distance) | (np.abs(apart).mean(1) <= _LINE * own)
    chosen = chosen[good]
  chosen = chosen[_correlation(first[chosen], last[chosen]) <= _ALIKE]
  blends = np.zeros(m, bool)
  blends[chosen] = True
  return blends


def _correlation(
  a: FloatArray['m d'], b: FloatArray['m d']
) -> FloatArray[' m']:
  """Returns the correlation of rows; 0 where one of them has no structure."""
  a = a - a.mean(1, keepdims=True)
  b = b - b.mean(1, keepdims=True)
  scale = np.sqrt((a * a).mean(1) * (b * b).mean(1))
  return np.where(scale > 1, (a * b).mean(1) / np.maximum(scale, 1), 0)


def _are_of_two_shots(
  a: ui8['h w 3'], b: ui8['h w 3'], across: float, distance: float
) -> bool:
  """Returns whether two images differ as unrelated pictures do.

  Args:
    a: the last image before a step.
    b: the first image after it.
    across: least distance of images on the two sides.
    distance: see `find_transitions`.
  """
  unrelated = max(_unrelated_distance(a, b), 1.0)
  least = _least_distance(distance, unrelated)
  if across < least:
    return False
  aligned = _aligned_distance(a, b)
  share = aligned / unrelated
  if aligned < least or share < _DIFFERENT:
    return False
  alike = _similarity(a, b)
  return alike <= _SAME and share * (1 - alike) >= _DIFFERENT


def _least_distance(
  distance: float, unrelated: float | FloatArray[' n']
) -> float | FloatArray[' n']:
  """Returns the least distance of two shots' frames.

  Args:
    distance: see `find_transitions`.
    unrelated: distance of unrelated pictures of their grey levels.
  """
  return np.maximum(distance * np.minimum(1, unrelated / _USUAL), _LEAST)


def _unrelated_distance(a: ui8['h w 3'], b: ui8['h w 3']) -> float:
  """Returns the distance that the images' pixels have on average in any order.

  It is that of unrelated pictures with the same grey levels: of independent X
  and Y, E|X - Y| is the integral of F (1 - G) + G (1 - F).
  """
  f, g = (
    np.stack([np.bincount(channel, minlength=256) for channel in pixels])
    for pixels in (a.reshape(-1, 3).T, b.reshape(-1, 3).T)
  )
  f, g = np.cumsum(f, 1) / f[0].sum(), np.cumsum(g, 1) / g[0].sum()
  return float((f + g - 2 * f * g).sum(1).mean())


def _aligned_distance(a: ui8['h w 3'], b: ui8['h w 3']) -> float:
  """Returns the least distance of two images under a shift of a few px.

  A camera that jerks, or frames that the recording lost, make no cut.
  """
  a, b = a.astype(np.float32), b.astype(np.float32)
  return min(
    float(np.abs(a[here] - b[there]).mean())
    for here, there in _shifts(*a.shape[:2])
  )


def _similarity(a: ui8['h w 3'], b: ui8['h w 3']) -> float:
  """Returns how much of their structure two images have in common, 0 to 1.

  It is the mean correlation of small windows that have structure in both, under
  the best shift of a few px: light that varies slowly over the picture changes
  it little. Black bars, which all shots of a film share, do not count.
  """
  a, b = a.astype(np.float32).mean(-1), b.astype(np.float32).mean(-1)
  lit = np.maximum(a, b) > _BLACK
  rows, columns = (_inside_bars(lit.any(axis)) for axis in (1, 0))
  a, b = (np.ascontiguousarray(image[rows, columns]) for image in (a, b))
  if min(a.shape) <= _SHIFT:
    return 0.0
  a, b = a - cv2.blur(a, _WINDOW), b - cv2.blur(b, _WINDOW)
  levels = [np.sqrt(cv2.blur(image * image, _WINDOW)) for image in (a, b)]
  best = 0.0
  for here, there in _shifts(*a.shape):
    one, other = levels[0][here], levels[1][there]
    has_structure = (one > _STRUCTURE) & (other > _STRUCTURE)
    common = cv2.blur(a[here] * b[there], _WINDOW)[has_structure]
    correlations = common / (one * other)[has_structure]
    total = max(correlations.size, _MIN_WINDOWS)
    best = max(best, float(correlations.sum()) / total)
  return min(best, 1.0)


def _inside_bars(lit: BoolArray[' n']) -> slice:
  """Returns the part within dark bars, without the mixed row beside each."""
  n, found = len(lit), np.flatnonzero(lit)
  if not found.size:
    return slice(0, n)
  first, last = int(found[0]), int(found[-1]) + 1
  return slice(first + (first > 0), last - (last < n))


def _shifts(h: int, w: int) -> list[tuple[tuple, tuple]]:
  """Returns the overlapping parts of two images of a size, for each shift."""

  def part(dy, dx):
    return (
      slice(max(dy, 0), h + min(dy, 0)),
      slice(max(dx, 0), w + min(dx, 0)),
    )

  offsets = range(-_SHIFT, _SHIFT + 1)
  return [(part(y, x), part(-y, -x)) for y in offsets for x in offsets]


def _distances(images: ui8['n h w 3'], gap: int) -> FloatArray[' n-gap']:
  """Returns the distances of frames i and i + gap."""
  n = len(images)
  parts = [
    np.abs(
      images[i + gap : i + gap + _CHUNK].astype(np.int16)
      - images[i : min(i + _CHUNK, n - gap)]
    ).mean((1, 2, 3))
    for i in range(0, n - gap, _CHUNK)
  ]
  return np.concatenate(parts) if parts else np.zeros(0)


def _across(
  distances: FloatArray[' n'], gap: int, size: int
) -> list[FloatArray[' size']]:
  """Returns, for each step, the distances of the pairs that span it."""
  shifted = []
  for before in range(gap):
    values = np.full(size, np.inf)
    # Frames i - before and i - before + gap span the step from i to i + 1.
    values[before : before + len(distances)] = distances[: size - before]
    shifted.append(values)
  return shifted
