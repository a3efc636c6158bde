"""Clips that are the same every time, to validate, preview and measure on."""

from collections.abc import Iterable, Iterator

from absl import logging
from etils.array_types import ui8
import numpy as np

from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import scalars
from vdm.data import windowing

# Entries that say where clips are from and, for people, what they show.
PLACES = ('row', 'start', 'caption')


def load_clips(
  source: builders.ClipSource,
  spec: clip_spec.ClipSpec,
  num: int,
  *,
  seed: int = 0,
  texts: vocabulary.Reader | None = None,
) -> dict[str, np.ndarray]:
  """Returns the same clips every time.

  The middle window of every shot comes first, shots in an order shuffled by
  the seed, then further windows of the same shots, none twice. A window that
  cannot be read is logged and left out. Where a data set has fewer than `num`
  windows, there are as many clips as windows.

  Args:
    source: a clip source.
    spec: the clips' shape; neither cropped nor mirrored.
    num: number of clips.
    seed: of the order, and not the run's: runs of any seed are evaluated on the
      same clips.
    texts: reads their captions; None: these are not returned.

  Returns:
    'video' uint8 [n t h w 3]; 'label' int32 [n]; 'row' int64 [n], the record
    (as `source.truth` takes it) in which a clip starts, and 'start' int64 [n],
    at which frame of it; float32 [n] for each of `spec.scalars`. With `texts`
    also 'caption' str [n], and what is read of it.

  Raises:
    ValueError: the data set has no such clips.
    BadRecordsError: more than `spec.max_bad` records were unreadable.
  """
  if num < 1:
    raise ValueError(f'num must be at least 1, not {num}.')
  windows = windowing.find_windows(source, spec)
  clips, places = [], []
  order = windowing.sampled_order(windows, 'middle', seed)
  for shot, start, clip in read_clips(source, windows, order):
    clips.append(clip)
    entry, positions = windows.locate(shot, start)[0]
    places.append((entry, positions[0]))
    if len(clips) == num:
      break
  entries, starts = np.asarray(places, np.int64).T
  told = {}
  if texts is not None:
    told['caption'] = np.asarray(source.index['caption'], np.str_)[entries]
    told |= vocabulary.read_all(texts, told['caption'])
  return {
    'video': np.stack(clips),
    'label': np.asarray(source.index['label'], np.int32)[entries],
    'row': np.asarray(source.index['row'], np.int64)[entries],
    'start': starts,
    **told,
    **_scalars(source, spec, clips),
  }


def _scalars(source, spec, clips) -> dict[str, np.ndarray]:
  rate = source.info['frame_rate'] / spec.stride
  rows = [scalars.describe(spec.scalars, clip, rate) for clip in clips]
  return {name: np.stack([row[name] for row in rows]) for name in spec.scalars}


def read_clips(
  source: builders.ClipSource,
  windows: windowing.Windows,
  order: Iterable[tuple[int, int]],
) -> Iterator[tuple[int, int, ui8['t h w 3']]]:
  """Yields (shot, start, clip) in an order.

  A window that cannot be read is logged and left out.

  Raises:
    BadRecordsError: more than `spec.max_bad` different records were
      unreadable, or nothing else was there.
  """
  found, bad = False, {}
  for shot, start in order:
    try:
      clip = clip_reader.read_window(source, windows, shot, start)
    except clip_reader.UnreadableError as error:
      logging.warning(
        'Record %s cannot be read (%s): its clip is left out.',
        source.index['id'][error.entry],
        error.reason,
      )
      bad[error.entry] = error.reason
      if len(bad) > windows.spec.max_bad:
        raise clip_reader.too_many_bad(source, [*bad.items()]) from error
      continue
    found = True
    yield shot, start, clip
  if not found:
    raise clip_reader.too_many_bad(source, [*bad.items()])
