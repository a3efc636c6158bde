"""Clips that are the same every time, to look at and to judge by."""

from collections.abc import Iterable, Iterator

from absl import logging
import numpy as np

from vdm.data import windowing


def fixed_clips(
  source,
  *,
  num: int,
  frames: int,
  stride: int,
  resolution: int,
  seed: int = 0,
  max_bad: int = 16,
) -> dict[str, np.ndarray]:
  """Returns the same clips every time, to validate, preview and measure on.

  The middle window of every shot comes first, shots in an order shuffled by
  the seed, then further windows of the same shots, none twice. A window that
  cannot be read is logged and left out. Where a data set has fewer than `num`
  windows, there are as many clips as windows.

  Returns:
    'video' uint8 [n t h w 3]; 'label' int32 [n]; 'row' int64 [n], the record
    (as `source.truth` takes it) in which a clip begins, and 'start' int64 [n],
    at which frame of it.

  Raises:
    ValueError: the data set has no such clips.
    BadRecordsError: more than `max_bad` different records were unreadable.
  """
  if num < 1:
    raise ValueError(f'num must be at least 1, not {num}.')
  windowing.check_resolution(source, resolution)
  windows = windowing.find_windows(source, frames=frames, stride=stride)
  clips, places = [], []
  order = windowing.fixed_order(windows, seed)
  for shot, start, clip in read_clips(
    source, windows, order, resolution=resolution, max_bad=max_bad
  ):
    clips.append(clip)
    entry, positions = windows.locate(shot, start)[0]
    places.append((entry, positions[0]))
    if len(clips) == num:
      break
  entries, starts = np.asarray(places, np.int64).T
  return {
    'video': np.stack(clips),
    'label': np.asarray(source.index['label'], np.int32)[entries],
    'row': np.asarray(source.index['row'], np.int64)[entries],
    'start': starts,
  }


def read_clips(
  source,
  windows: windowing.Windows,
  order: Iterable[tuple[int, int]],
  *,
  resolution: int,
  max_bad: int = 16,
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Yields (shot, start, clip) in an order; clips are uint8 [t h w 3].

  A window that cannot be read is logged and left out.

  Raises:
    BadRecordsError: more than `max_bad` different records were unreadable, or
      nothing else was there.
  """
  found, bad = False, {}
  for shot, start in order:
    try:
      clip = windowing.read_window(source, windows, shot, start, resolution)
    except windowing.UnreadableError as error:
      logging.warning(
        'Record %s cannot be read (%s): its clip is left out.',
        source.index['id'][error.entry],
        error.reason,
      )
      bad[error.entry] = error.reason
      if len(bad) > max_bad:
        raise windowing.too_many_bad(source, list(bad.items())) from error
      continue
    found = True
    yield shot, start, clip
  if not found:
    raise windowing.too_many_bad(source, list(bad.items()))
