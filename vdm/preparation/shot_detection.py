"""Detects where a video's shots start and end, from thumbnails of its frames.

A hard cut is a step between two frames that stands out from the steps around
it and persists between frames that are two and three apart, so that a flash,
one odd frame or fast motion is none. A gradual transition (fade, dissolve) is a
run of frames that lie on a straight line between its ends, in equal steps,
where the ends have little structure in common: motion leaves that line, and a
change of exposure keeps the structure.

Distances are mean absolute differences of RGB values, 0 to 255. A hard cut
loses no frame; of a gradual transition the mixed frames belong to no shot.
"""

import dataclasses

from etils.array_types import BoolArray, FloatArray, ui8
import numpy as np

HEIGHT, WIDTH = 18, 32  # Px of thumbnails; each a mean over its area.

_AROUND = 5  # Steps on either side that a cut is compared with.
_LENGTHS = (6, 8, 12, 16, 24, 32, 48)  # Frames from end to end of a transition.
_LINE = 0.13  # Greatest distance from the straight line, of that of the ends.
_PURE = 0.03  # Share of the other shot below which a frame is of one.
_ALIKE = 0.5  # Ends that correlate more are of one shot.
_SHIFT = 4  # Px that two frames of one shot may have jumped, each way.
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
    distance: least distance of two shots' frames, grey levels.
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
  is_cut = (one >= ratio * np.maximum(others, 1.0)) & (across >= distance)
  return [
    int(i) + 1
    for i in np.flatnonzero(is_cut)
    if _aligned_distance(images[i], images[i + 1]) >= distance
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
  chosen = np.flatnonzero(far >= distance)
  if not chosen.size:
    return np.zeros(m, bool)
  first, last = first[chosen], last[chosen]
  length_of_line = np.abs(last - first).mean(1)
  good = _correlation(first, last) <= _ALIKE
  for part in (length // 4, length // 2, length - length // 4):
    share = part / length
    line = (1 - share) * first + share * last
    apart = np.abs(flat[chosen + part] - line).mean(1)
    good &= apart <= _LINE * length_of_line
  blends = np.zeros(m, bool)
  blends[chosen[good]] = True
  return blends


def _correlation(
  a: FloatArray['m d'], b: FloatArray['m d']
) -> FloatArray[' m']:
  """Returns the correlation of rows; 0 where one of them has no structure."""
  a = a - a.mean(1, keepdims=True)
  b = b - b.mean(1, keepdims=True)
  scale = np.sqrt((a * a).mean(1) * (b * b).mean(1))
  return np.where(scale > 1, (a * b).mean(1) / np.maximum(scale, 1), 0)


def _aligned_distance(a: ui8['h w 3'], b: ui8['h w 3']) -> float:
  """Returns the least distance of two images under a shift of a few px.

  A camera that jerks, or frames that the recording lost, make no cut.
  """
  a, b = a.astype(np.float32), b.astype(np.float32)
  h, w = a.shape[:2]

  def overlap(image, dy, dx):
    return image[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)]

  return min(
    float(np.abs(overlap(a, dy, dx) - overlap(b, -dy, -dx)).mean())
    for dy in range(-_SHIFT, _SHIFT + 1)
    for dx in range(-_SHIFT, _SHIFT + 1)
  )


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
