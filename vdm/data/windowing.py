"""Windows of frames: which a data set offers, and how one is read.

A window is `frames` frames of one shot, every `stride`-th, so it spans
`(frames - 1) * stride + 1` stored frames. A shot is stored as one or more
records of consecutive frames; a window begins at any frame of the shot that
leaves room for it and may run over the border between records.

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Iterator, Sequence
import dataclasses

from absl import logging
import cv2
import numpy as np

from vdm.data import coding


class UnreadableError(Exception):
  """One record cannot be read.

  Attributes:
    entry: where it stands in the index.
    reason: why, in a few words.
  """

  def __init__(self, entry: int, reason: str):
    super().__init__(entry, reason)
    self.entry, self.reason = entry, reason


class BadRecordsError(RuntimeError):
  """So many records cannot be read that the data set should be looked at."""


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """The legal windows of a data set, shot by shot.

  Attributes:
    frames: frames of a window.
    stride: stored frames from one frame of a window to the next.
    entries: [r] where records stand in the index, shot after shot, each in the
      order of time.
    begins: [r] the frame of its shot at which a record begins.
    bounds: [s + 1] shot i owns `entries[bounds[i]:bounds[i + 1]]`.
    starts: [s] how many windows a shot has; they start at 0, 1, ...
  """

  frames: int
  stride: int
  entries: np.ndarray
  begins: np.ndarray
  bounds: np.ndarray
  starts: np.ndarray

  def __len__(self) -> int:
    """Returns the number of shots that are long enough for a window."""
    return len(self.starts)

  def locate(self, shot: int, start: int) -> list[tuple[int, np.ndarray]]:
    """Returns a window's frames as (entry, frames within that record)."""
    own = slice(self.bounds[shot], self.bounds[shot + 1])
    entries, begins = self.entries[own], self.begins[own]
    wanted = start + self.stride * np.arange(self.frames)
    record = np.searchsorted(begins, wanted, side='right') - 1
    return [
      (int(entries[r]), wanted[record == r] - begins[r])
      for r in np.unique(record)
    ]


def find_windows(source, *, frames: int, stride: int) -> Windows:
  """Returns the windows that a clip source offers, and logs their duration.

  Records of one shot that do not adjoin, as when part of it is in another
  split, are taken for shots of their own. The order of the shots depends on
  their names and not on the order of the records.

  Args:
    source: a clip source, with `info` and `index`.
    frames: frames of a window.
    stride: stored frames from one frame of a window to the next.

  Raises:
    ValueError: no shot is long enough.
  """
  if frames < 1 or stride < 1:
    raise ValueError(
      f'frames and stride must be at least 1, not {frames} and {stride}.'
    )
  index = source.index
  name, rate = source.info['name'], float(source.info['frame_rate'])
  count = np.asarray(index['n'], np.int64)
  begin = np.asarray(index['start'], np.int64)
  _, shot = np.unique(np.asarray(index['shot']), return_inverse=True)
  entries = np.lexsort((begin, shot))
  entries = entries[count[entries] > 0]
  if not entries.size:
    raise ValueError(f'{name} holds no frames in this split: build it again.')

  shot, begin, count = shot[entries], begin[entries], count[entries]
  end = begin + count
  opens = np.ones(len(entries), bool)
  opens[1:] = (shot[1:] != shot[:-1]) | (begin[1:] != end[:-1])
  first = np.flatnonzero(opens)
  last = np.append(first[1:], len(entries)) - 1
  lengths = end[last] - begin[first]
  span = (frames - 1) * stride + 1
  legal = lengths >= span
  if not legal.any():
    raise ValueError(
      f'No shot of {name} has the {span} frames that {frames} frames at '
      f'stride {stride} span (the longest has {lengths.max()}): lower '
      'frames or stride.'
    )
  owner = np.cumsum(opens) - 1
  kept = legal[owner]
  logging.info(
    '%s: clips of %d frames, stride %d at %g frames a second: %.3g s; '
    '%d shots, %d more are too short.',
    name,
    frames,
    stride,
    rate,
    frames * stride / rate,
    legal.sum(),
    (~legal).sum(),
  )
  return Windows(
    frames=frames,
    stride=stride,
    entries=entries[kept],
    begins=(begin - begin[first][owner])[kept],
    bounds=np.append(0, np.cumsum((last - first + 1)[legal])),
    starts=lengths[legal] - span + 1,
  )


def too_many_bad(source, bad: Sequence[tuple[int, str]]) -> BadRecordsError:
  """Returns the error that names the first of these (entry, reason) pairs."""
  named = '; '.join(
    f'{source.index["id"][entry]} ({reason})' for entry, reason in bad[:3]
  )
  return BadRecordsError(
    f'{len(bad)} records of {source.info["name"]} cannot be read, too many '
    f'to go on; the first are {named}: build it again, or raise '
    'data.max_bad_records.'
  )


def check_resolution(source, resolution: int):
  """Raises ValueError where a source stores less than `resolution` px."""
  stored = source.info['resolution']
  if not 1 <= resolution <= stored:
    raise ValueError(
      f'Clips of {resolution} px cannot be had from {source.info["name"]}, '
      f'which stores {stored} px: lower resolution, or build it larger.'
    )


def read_window(
  source,
  windows: Windows,
  shot: int,
  start: int,
  resolution: int,
  region: tuple[int, int, int] | None = None,
) -> np.ndarray:
  """Returns one window, uint8 [t h w 3], area-resized to `resolution`.

  Args:
    source: a clip source.
    windows: what `find_windows` returned for it.
    shot: number of the shot, in the order of `windows`.
    start: number of the window in it.
    resolution: height and width that come out, px.
    region: (top, left, side) of the part that is cut out of the stored
      frames, px; None for all of them.

  Raises:
    UnreadableError: a record of it cannot be read or is not what it should be.
  """
  stored = source.info['resolution']
  images = []
  for entry, positions in windows.locate(shot, start):
    low, high = int(positions[0]), int(positions[-1]) + 1
    # Whatever goes wrong here is counted against the record, whose reader may
    # raise anything; a mistake in the code hits every record and so stops the
    # run at its first batch.
    try:
      row = int(source.index['row'][entry])
      encoded = source.frames(row, low, high)
      for position in positions - low:
        image = coding.decode_frame(encoded[position])
        if image.shape != (stored, stored, 3):
          raise ValueError(f'a frame of shape {image.shape}')
        images.append(image)
    except Exception as error:
      reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
      raise UnreadableError(entry, reason) from error
  side = stored
  if region is not None:
    top, left, side = region
    images = [x[top : top + side, left : left + side] for x in images]
  if resolution < side:
    size = (resolution, resolution)
    images = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in images]
  return np.stack(images)


def fixed_order(windows: Windows, seed: int) -> Iterator[tuple[int, int]]:
  """Yields every (shot, start) once: the middles first, shots in turn."""
  rng = np.random.default_rng(seed)
  shots = rng.permutation(len(windows))
  middles = (windows.starts - 1) // 2
  for shot in shots:
    yield int(shot), int(middles[shot])
  orders = {}
  for shot in shots:
    starts = rng.permutation(windows.starts[shot])
    orders[int(shot)] = starts[starts != middles[shot]]
  for turn in range(windows.starts.max() - 1):
    for shot, starts in orders.items():
      if turn < len(starts):
        yield shot, int(starts[turn])


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
  if sampling == 'middle':
    yield from fixed_order(windows, seed)
    return
  rng = np.random.default_rng(seed)
  first = sampling == 'first'
  shots = np.arange(len(windows))
  shots = shots if first else rng.permutation(shots)
  orders = [
    np.arange(windows.starts[s])
    if first
    else rng.permutation(windows.starts[s])
    for s in shots
  ]
  for turn in range(windows.starts.max()):
    for shot, starts in zip(shots, orders, strict=True):
      if turn < len(starts):
        yield int(shot), int(starts[turn])
