"""Reads clips: one window of frames, or a stage's training clip by its number.

All that is random about a training clip is drawn from the stage's name, the
seed and the clip's own number, `n * batch + row` of batch n: its shot, start,
mirroring and crop. Every shot comes once an epoch, in a newly shuffled order,
with a start drawn uniformly over its legal ones. A window that cannot be read
is replaced by one of the next shot in the data set's order, drawn from the same
number.

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

from etils.array_types import IntArray, ui8
import numpy as np

from vdm.common import sizes
from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import coding
from vdm.data import latent_cache
from vdm.data import scalars
from vdm.data import windowing


class UnreadableError(Exception):
  """One record cannot be read.

  Attributes:
    entry: its row of the index.
    reason: why, in a few words.
  """

  def __init__(self, entry: int, reason: str):
    super().__init__(entry, reason)
    self.entry, self.reason = entry, reason


class BadRecordsError(RuntimeError):
  """Too many records cannot be read: the data set needs attention."""


def too_many_bad(
  source: builders.ClipSource, bad: Sequence[tuple[int, str]]
) -> BadRecordsError:
  """Returns the error that names the first of these (entry, reason) pairs."""
  named = '; '.join(
    f'{source.index["id"][entry]} ({reason})' for entry, reason in bad[:3]
  )
  return BadRecordsError(
    f'{len(bad)} records of {source.info["name"]} cannot be read, too many '
    f'to continue; the first are {named}: build it again, or raise '
    'data.max_bad_records.'
  )


def read_window(
  source: builders.ClipSource,
  windows: windowing.Windows,
  shot: int,
  start: int,
  region: tuple[int, int, int, int] | None = None,
  stride: int = 0,
) -> ui8['t h w 3']:
  """Returns one window, area-resized.

  Args:
    source: a clip source.
    windows: what `find_windows` returned for it.
    shot: number of the shot, in the order of `windows`.
    start: number of the window in it.
    region: (top, left, rows, columns) of the part of the stored frames that
      becomes a clip of `spec.size` px; None: all of them, at `spec.whole`.
    stride: of the window; 0: that of the spec.

  Raises:
    UnreadableError: a record of it cannot be read or is not what it should be.
  """
  stored, size = sizes.of(source.info), windows.spec.whole

  def read(entry: int, positions: IntArray[' n']) -> list[ui8['h w 3']]:
    low, high = int(positions[0]), int(positions[-1]) + 1
    encoded = source.frames(int(source.index['row'][entry]), low, high)
    return [coding.decode_frame(encoded[i], stored) for i in positions - low]

  images = _read_records(windows, shot, start, stride, read)
  images = [*itertools.chain(*images)]
  if region is not None:
    (top, left, rows, columns), size = region, windows.spec.size
    images = [x[top : top + rows, left : left + columns] for x in images]
  return np.stack([coding.shrink(image, size) for image in images])


def _read_records(
  windows: windowing.Windows,
  shot: int,
  start: int,
  stride: int,
  read: Callable[[int, IntArray[' n']], Any],
) -> list[Any]:
  """Returns `read(entry, positions)` of each record that a window lies in."""
  parts = []
  for entry, positions in windows.locate(shot, start, stride):
    # Whatever goes wrong here is counted against the record, whose reader may
    # raise anything; a mistake in the code hits every record and so stops the
    # run at its first batch.
    try:
      parts.append(read(entry, positions))
    except Exception as error:
      reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
      raise UnreadableError(entry, reason) from error
  return parts


class Clip(NamedTuple):
  """A training clip.

  Attributes:
    arrays: 'video' uint8 [t h w 3], or from a latent cache 'mean' and perhaps
      'logvar', float16 [t h w c]; 'label' int32 [], -1 where there is none;
      float32 [] for each of `spec.scalars`; and what a reader of captions
      returns.
    shot: number of its shot, in the order of the windows.
    start: number of its window in the shot.
    bad: (entry, reason) of the records that could not be read in its place.
  """

  arrays: dict[str, np.ndarray]
  shot: int
  start: int
  bad: list[tuple[int, str]]


@functools.lru_cache(maxsize=8)
def _order(
  entropy: tuple[int, int], epoch: int, shots: int
) -> IntArray[' shots']:
  """Returns the order of the shots in one epoch."""
  return np.random.default_rng((*entropy, 0, epoch)).permutation(shots)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingClips:
  """The clips of a stage by their numbers.

  Grain's own `shuffle` is not used: it searches some 2**16 places for its
  next index, 10 ms and more a clip where there are only a few shots.

  Attributes:
    source: a clip source.
    windows: what `find_windows` returned for it.
    cache: latents to read in place of frames; None: frames.
    posterior: whether to read their log-variances, too.
    texts: reads their captions; None: these are not read.
  """

  source: builders.ClipSource
  windows: windowing.Windows
  cache: latent_cache.Cache | None = None
  posterior: bool = False
  texts: vocabulary.Reader | None = None

  def read(self, number: int) -> Clip:
    """Returns clip `number`, or one of the next shot that can be read.

    Raises:
      BadRecordsError: more than `spec.max_bad` records were unreadable.
    """
    spec, shots = self.windows.spec, len(self.windows)
    epoch, place = divmod(number, shots)
    first = int(_order(spec.entropy, epoch, shots)[place])
    rng = np.random.default_rng((*spec.entropy, 1, number))
    mirrored = rng.random() < 0.5 and spec.flip
    region = self._draw_region(rng)
    wanted = spec.stride
    if spec.max_stride > spec.stride:
      wanted = int(rng.integers(spec.stride, spec.max_stride + 1))
    bad = []
    for turn in range(shots):
      shot = (first + turn) % shots
      stride = wanted
      while (count := self.windows.count(shot, stride)) < 1:
        stride -= 1
      start = int(rng.integers(count))
      try:
        arrays = self._read_window(shot, start, stride, mirrored, region)
      except UnreadableError as error:
        bad.append((error.entry, error.reason))
        if len(bad) > spec.max_bad:
          break
      else:
        entry = self.windows.entries[self.windows.bounds[shot]]
        arrays = arrays | self._read_conditions(entry, arrays, stride)
        return Clip(arrays, shot, start, bad)
    raise too_many_bad(self.source, bad)

  def name(self, number: int) -> dict[str, str | int]:
    """Returns the id of the record in which a clip starts, and its frame."""
    clip = self.read(number)
    entry, positions = self.windows.locate(clip.shot, clip.start)[0]
    return {
      'id': str(self.source.index['id'][entry]),
      'start': int(positions[0]),
    }

  def _read_conditions(self, entry, arrays, stride):
    index = self.source.index
    found = {'label': np.int32(index['label'][entry])}
    if self.texts is not None:
      found |= self.texts.read(str(index['caption'][entry]))
    return found | scalars.describe(
      self.windows.spec.scalars,
      arrays.get('video'),
      self.source.info['frame_rate'] / stride,
    )

  def _read_window(self, shot, start, stride, mirrored, region):
    if self.cache is None:
      video = read_window(
        self.source, self.windows, shot, start, region, stride
      )
      return {'video': video[:, :, ::-1] if mirrored else video}
    read = functools.partial(
      self.cache.read, mirrored=mirrored, posterior=self.posterior
    )
    parts = _read_records(self.windows, shot, start, stride, read)
    return dict(zip(('mean', 'logvar'), np.concatenate(parts, axis=1)))

  def _draw_region(self, rng) -> tuple[int, int, int, int] | None:
    """Draws (top, left, rows, columns) of what is shown; None: the frame."""
    spec = self.windows.spec
    if spec.whole_frames:
      return None
    zoom = rng.uniform(*spec.zoom)
    top, left, *stored = sizes.fit(sizes.of(self.source.info), spec.whole)
    shown = [
      min(max(round(size * outer / (inner * zoom)), size), outer)
      for size, outer, inner in zip(spec.size, stored, spec.whole)
    ]
    down, right = rng.integers(np.subtract(stored, shown) + 1)
    return top + int(down), left + int(right), *shown
