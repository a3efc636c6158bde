"""Windows of frames: which a data set offers, and orders to take them in.

A window is `frames` frames of one shot, every `stride`-th, so it spans
`(frames - 1) * stride + 1` stored frames. A shot is stored as one or more
records of consecutive frames; a window starts at any frame of the shot that
leaves room for it and may cross the border between records.

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Iterator
import dataclasses

from etils.array_types import IntArray
import numpy as np

from vdm.data import builders
from vdm.data import clip_spec


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """The legal windows of a data set, shot by shot.

  Attributes:
    spec: the clips that the windows are for.
    entries: rows of the index, shot after shot, each in the order of time.
    offsets: the frame of its shot at which a record starts.
    bounds: shot i consists of `entries[bounds[i]:bounds[i + 1]]`.
    counts: how many windows a shot has; they start at its frames 0, 1, ...
    too_short: how many more shots there are, which have no window.
  """

  spec: clip_spec.ClipSpec
  entries: IntArray[' records']
  offsets: IntArray[' records']
  bounds: IntArray[' shots+1']
  counts: IntArray[' shots']
  too_short: int = 0

  def __len__(self) -> int:
    """Returns the number of shots that are long enough for a window."""
    return len(self.counts)

  def describe(self, frame_rate: float) -> str:
    """Returns how long the windows are, and how many shots have any.

    Args:
      frame_rate: of the stored frames, frames a second.
    """
    frames, stride = self.spec.frames, self.spec.stride
    text = 'single frames'
    if frames > 1:
      text = (
        f'windows of {frames} frames = {frames * stride / frame_rate:.3g} s'
      )
      text += f' at stride {stride}' * (stride > 1)
    text += f', from {len(self)} {"shot" if len(self) == 1 else "shots"}'
    if self.too_short:
      are = 'is' if self.too_short == 1 else 'are'
      text += f'; {self.too_short} more {are} too short'
    return text

  def count(self, shot: int, stride: int) -> int:
    """Returns how many windows of another stride a shot has; below 1: none."""
    return int(self.counts[shot]) + self.spec.span() - self.spec.span(stride)

  def locate(
    self, shot: int, start: int, stride: int = 0
  ) -> list[tuple[int, IntArray[' n']]]:
    """Returns a window's frames as (entry, frames within that record).

    Args:
      shot: number of the shot.
      start: the window's first frame in it.
      stride: from one frame to the next; 0: that of the spec.
    """
    own = slice(self.bounds[shot], self.bounds[shot + 1])
    entries, offsets = self.entries[own], self.offsets[own]
    stride = stride or self.spec.stride
    wanted = start + stride * np.arange(self.spec.frames)
    record = np.searchsorted(offsets, wanted, side='right') - 1
    return [
      (int(entries[r]), wanted[record == r] - offsets[r])
      for r in np.unique(record)
    ]


def find_windows(
  source: builders.ClipSource, spec: clip_spec.ClipSpec
) -> Windows:
  """Returns the windows that a clip source offers.

  Records of one shot that do not adjoin, as when part of it is in another
  split, count as separate shots. They are in the order of their numbers, which
  the data set was built with, whatever the order of the records.

  Raises:
    ValueError: the data set cannot give such clips, or no shot is long enough.
  """
  spec.check(source)
  name, span = source.info['name'], spec.span()
  entries, start, opens, lengths = _shots(source)
  legal = lengths >= span
  if not legal.any():
    raise ValueError(
      f'No shot of {name} has the {span} frames that {spec.frames} frames at '
      f'stride {spec.stride} span (the longest has {lengths.max()}): lower '
      'frames or stride.'
    )
  first, owner = np.flatnonzero(opens), np.cumsum(opens) - 1
  records = np.bincount(owner)
  used = legal[owner]
  return Windows(
    spec=spec,
    entries=entries[used],
    offsets=(start - start[first][owner])[used],
    bounds=np.append(0, np.cumsum(records[legal])),
    counts=lengths[legal] - span + 1,
    too_short=int((~legal).sum()),
  )


def longest_shot(source: builders.ClipSource) -> int:
  """Returns the frames of the longest shot of a clip source.

  Raises:
    ValueError: it holds no frames.
  """
  return int(_shots(source)[-1].max())


def _shots(source):
  """Returns rows of the index, shot by shot, and what they hold.

  Returns:
    The rows; of each its first frame, and whether it opens a shot; the frames
    of each shot.
  """
  index = source.index
  count = np.asarray(index['n'], np.int64)
  start = np.asarray(index['start'], np.int64)
  _, shot = np.unique(np.asarray(index['shot']), return_inverse=True)
  entries = np.lexsort((start, shot))
  entries = entries[count[entries] > 0]
  if not entries.size:
    raise ValueError(
      f'{source.info["name"]} holds no frames in this split: build it again.'
    )
  shot, start, count = shot[entries], start[entries], count[entries]
  end = start + count
  opens = np.ones(len(entries), bool)
  opens[1:] = (shot[1:] != shot[:-1]) | (start[1:] != end[:-1])
  first = np.flatnonzero(opens)
  last = np.append(first[1:], len(entries)) - 1
  return entries, start, opens, end[last] - start[first]


def sampled_order(
  windows: Windows, sampling: str, seed: int
) -> Iterator[tuple[int, int]]:
  """Yields every (shot, start) once, each shot before any comes again.

  Args:
    windows: of a data set.
    sampling: 'random': shots in a shuffled order, windows of each drawn;
      'middle': the same order, the middle window first; 'first': shots by
      name, their first window first.
    seed: of what is drawn.
  """
  rng = np.random.default_rng(seed)
  shots = np.arange(len(windows))
  if sampling != 'first':
    shots = rng.permutation(shots)
  shots, middles = shots.tolist(), (windows.counts - 1) // 2
  if sampling == 'middle':  # Without the draws below, which take their time.
    yield from ((shot, int(middles[shot])) for shot in shots)
  orders = {}
  for shot in shots:
    starts = np.arange(windows.counts[shot])
    if sampling != 'first':
      starts = rng.permutation(starts)
    if sampling == 'middle':
      starts = starts[starts != middles[shot]]
    orders[shot] = starts
  for turn in range(windows.counts.max()):
    for shot, starts in orders.items():
      if turn < len(starts):
        yield shot, int(starts[turn])
