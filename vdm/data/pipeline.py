"""Training batches through Grain, and fixed clips to look at and judge by.

The n-th batch of a stage is a pure function of (data set, seed, stage, global
batch, n). All that is random about an element is drawn from its global number
`n * batch + row`, before hosts, worker processes and threads share the work,
so the batches are the same bytes for any number of them and a run resumes by
asking for `start=n`. An element is one shot: every shot comes once an epoch,
in an order shuffled anew, with a start drawn uniformly over its legal ones.

A record that cannot be read is replaced by a window of the next shot in the
data set's order; which one follows from the element's number too. The element
carries the name of what it replaced, so the consumer counts and logs it when
the batch is used, and a run stops at the same step for any number of workers.

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import time
import weakref
import zlib

from absl import flags
from absl import logging
import grain
import numpy as np

from vdm.data import latents as latents_lib
from vdm.data import windows as windows_lib

BadRecordsError = windows_lib.BadRecordsError

_ENDLESS = 2**40  # Batches; no run is longer.


@functools.lru_cache(maxsize=8)
def _order(entropy: tuple[int, int], epoch: int, shots: int) -> np.ndarray:
  """Returns the order of the shots in one epoch."""
  return np.random.default_rng((*entropy, 0, epoch)).permutation(shots)


@dataclasses.dataclass(frozen=True, eq=False)
class _Clips:
  """The clips of this host's rows, in order: the source that Grain reads.

  Grain's own `shuffle` is not used: it searches some 2**16 places for its
  next index, 10 ms and more a clip where there are only a few shots.

  Attributes:
    entropy: what seed and stage add to every draw.
    batch: clips of a global batch.
    own: of those, how many are this host's.
    first: number of this host's first clip, in the endless order of all.
    steps: batches until the end.
    cache: latents to take in place of frames; None for frames.
    posterior: whether their log-variances are wanted, too.
  """

  source: object
  windows: windows_lib.Windows
  resolution: int
  crop: int
  zoom: tuple[float, float]
  flip: bool
  max_bad: int
  entropy: tuple[int, int]
  batch: int
  own: int
  first: int
  steps: int
  cache: latents_lib.Cache | None
  posterior: bool

  def __len__(self) -> int:
    return self.steps * self.own

  def __getitem__(self, index: int) -> dict:
    step, row = divmod(int(index), self.own)
    return self.read(self.first + step * self.batch + row)

  def read(self, number: int) -> dict:
    """Returns clip `number` of the stage, or one of the next shot it can."""
    shots = len(self.windows)
    epoch, place = divmod(number, shots)
    first = int(_order(self.entropy, epoch, shots)[place])
    rng = np.random.default_rng((*self.entropy, 1, number))
    mirrored = rng.random() < 0.5
    region = self._region(rng)
    bad = []
    for turn in range(shots):
      shot = (first + turn) % shots
      start = int(rng.integers(self.windows.starts[shot]))
      try:
        arrays = self._window(shot, start, self.flip and mirrored, region)
      except windows_lib.UnreadableError as error:
        bad.append((error.entry, error.reason))
        if len(bad) > self.max_bad:
          break
        continue
      entry = self.windows.entries[self.windows.bounds[shot]]
      label = self.source.index['label'][entry]
      place = (shot, start)
      return {**arrays, 'label': label, 'bad': bad, 'place': place}
    raise windows_lib.too_many_bad(self.source, bad)

  def _window(self, shot, start, mirrored, region) -> dict[str, np.ndarray]:
    if self.cache is not None:
      return latents_lib.read_window(
        self.cache,
        self.windows,
        shot,
        start,
        mirrored=mirrored,
        posterior=self.posterior,
      )
    clip = windows_lib.read_window(
      self.source, self.windows, shot, start, self.crop, region
    )
    return {'video': clip[:, :, ::-1] if mirrored else clip}

  def _region(self, rng) -> tuple[int, int, int] | None:
    """Draws the part of the stored frames that a clip shows."""
    if self.crop == self.resolution and self.zoom == (1.0, 1.0):
      return None
    stored = self.source.info['resolution']
    zoom = rng.uniform(*self.zoom)
    side = round(self.crop * stored / (self.resolution * zoom))
    side = min(max(side, self.crop), stored)
    top, left = rng.integers(stored - side + 1, size=2)
    return int(top), int(left), side


def _stack(clips: Sequence[dict]) -> dict:
  arrays = clips[0].keys() - {'label', 'bad', 'place'}
  return {
    **{name: np.stack([clip[name] for clip in clips]) for name in arrays},
    'label': np.asarray([clip['label'] for clip in clips], np.int32),
    'bad': [one for clip in clips for one in clip['bad']],
  }


def _start_worker(index: int, count: int):
  """Makes a worker process end with its trainer, however that one ends."""
  del index, count
  # Ctrl-C and a scheduler's SIGTERM reach every process of the job; the
  # trainer decides what they mean, and closes its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  parent = multiprocessing.parent_process().pid

  # A trainer that is killed closes nothing. (PR_SET_PDEATHSIG would tell the
  # end of the thread that started this process, and Grain starts it in one.)
  def watch():
    while os.getppid() == parent:
      time.sleep(0.5)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _close(live: list[grain.DatasetIterator]):
  live.pop().close()


class Batches(Iterator):
  """The batches of a stage on this host; a context manager.

  Attributes:
    bad_records: how often a record had to be replaced in the batches returned
      so far, each occurrence counted.
  """

  def __init__(self, dataset: grain.IterDataset, source, max_bad: int):
    self.bad_records = 0
    self._source, self._max_bad = source, max_bad
    self._reasons = {}
    self._live = [iter(dataset)]
    # Also when the interpreter ends: what of Grain is still alive then prints
    # tracebacks, so nothing may be left that refers to it.
    self._finalizer = weakref.finalize(self, _close, self._live)
    self._live[0].start_prefetch()

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns {'video': uint8 [b t h w 3], 'label': int32 [b]}.

    With a latent cache, 'mean' and perhaps 'logvar', float16 [b t h w c], stand
    in place of 'video'.

    Raises:
      BadRecordsError: more than `max_bad` different records were unreadable.
      StopIteration: after the last batch, after an error and after `close`.
    """
    if not self._live:
      raise StopIteration
    try:
      batch = next(self._live[0])
      self._count(batch.pop('bad'))
    except Exception:
      self.close()  # After an error Grain would skip batches or hang.
      raise
    # What a worker sent lies in shared memory, which is released only with
    # the array: copied into an ordinary one.
    return {
      key: value if type(value) is np.ndarray else np.array(value)
      for key, value in batch.items()
    }

  def _count(self, bad: Sequence[tuple[int, str]]):
    for entry, reason in bad:
      self.bad_records += 1
      if entry not in self._reasons:
        self._reasons[entry] = reason
        logging.warning(
          'Record %s cannot be read (%s): a clip of the next shot takes '
          'its place.',
          self._source.index['id'][entry],
          reason,
        )
    if len(self._reasons) > self._max_bad:
      raise windows_lib.too_many_bad(self._source, list(self._reasons.items()))

  def close(self):
    """Stops threads and worker processes; may be called again."""
    self._finalizer()

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *unused):
    self.close()


def make_batches(
  source,
  *,
  frames: int,
  stride: int,
  resolution: int,
  batch: int,
  seed: int,
  stage: str,
  start: int = 0,
  stop: int | None = None,
  crop: int = 0,
  zoom: tuple[float, float] = (1.0, 1.0),
  flip: bool = False,
  num_classes: int = 0,
  cache: latents_lib.Cache | None = None,
  posterior: bool = False,
  process_index: int = 0,
  process_count: int = 1,
  threads: int = 4,
  workers: int = 0,
  max_bad: int = 16,
) -> Batches:
  """Returns this host's rows of batches `start`, `start + 1`, ... of a stage.

  Args:
    source: a clip source, from `builders.open_source`.
    frames: frames of a clip; 1 for images.
    stride: stored frames from one frame of a clip to the next.
    resolution: height and width of a clip, px; at most the stored one.
    batch: clips of a batch, over all hosts.
    seed: of the run.
    stage: name of the stage, which has its own order and windows.
    start: the first batch.
    stop: the batch before which to end; None: never.
    crop: height and width of the part of a clip that is trained on, at a
      random place, px; 0: all of it.
    zoom: range from which it is drawn how many times larger than `resolution`
      the frame is that the part is cut from; at most what is stored.
    flip: mirror half of the clips. Not for labels that have a direction.
    num_classes: labels that the model knows; 0: labels are not looked at.
    cache: of the source's latents, which are returned in place of frames: of
      the same windows, mirrored where those are. It is of whole frames.
    posterior: the cache's log-variances, too.
    process_index: this host, which gets rows `process_index * batch /
      process_count` and following.
    process_count: hosts.
    threads: that decode, in each process; each makes whole batches. 0: none,
      a batch is made when it is asked for.
    workers: processes that decode; 0: this one.
    max_bad: different records that may be unreadable, among this host's rows
      since this call, before the run stops.

  Raises:
    ValueError: the data set cannot give such batches.
    RuntimeError: absl's flags are not parsed, which worker processes need.
  """
  if batch < 1 or batch % process_count:
    raise ValueError(
      f'A batch of {batch} cannot be shared evenly by {process_count} hosts: '
      'make it a multiple.'
    )
  if workers and not flags.FLAGS.is_parsed():
    raise RuntimeError(
      'Worker processes need parsed absl flags: start through absl.app.run, '
      'call absl.flags.FLAGS.mark_as_parsed(), or set data.workers=0.'
    )
  largest = int(np.max(source.index['label']))
  if num_classes and largest >= num_classes:
    raise ValueError(
      f'{source.info["name"]} has label {largest}, but the model knows '
      f'{num_classes}: set model.num_classes={largest + 1}.'
    )
  clips = _make_clips(
    source,
    frames=frames,
    stride=stride,
    resolution=resolution,
    crop=crop,
    zoom=zoom,
    batch=batch,
    seed=seed,
    stage=stage,
    flip=flip,
    max_bad=max_bad,
    own=batch // process_count,
    first=start * batch + process_index * (batch // process_count),
    steps=_ENDLESS if stop is None else max(0, stop - start),
    cache=cache,
    posterior=posterior,
  )
  dataset = (
    grain.MapDataset.source(clips)
    .batch(clips.own, drop_remainder=True, batch_fn=_stack)
    .to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    )
  )
  if workers:
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=2
      ),
      worker_init_fn=_start_worker,
    )
  return Batches(dataset, source, max_bad)


def _make_clips(
  source,
  *,
  frames: int,
  stride: int,
  resolution: int,
  crop: int,
  zoom: tuple[float, float],
  batch: int,
  seed: int,
  stage: str,
  flip: bool,
  max_bad: int,
  own: int,
  first: int,
  steps: int,
  cache: latents_lib.Cache | None = None,
  posterior: bool = False,
) -> _Clips:
  """Returns a host's clips; see `make_batches` and `_Clips`."""
  windows_lib.check_resolution(source, resolution)
  stored = source.info['resolution']
  if not (
    crop <= resolution and 1 <= zoom[0] <= zoom[1] <= stored / resolution
  ):
    raise ValueError(
      f'Crops of {crop} px at a zoom of {zoom} cannot be had from frames of '
      f'{resolution} px, stored at {stored} px.'
    )
  windows = windows_lib.find_windows(source, frames=frames, stride=stride)
  # A stable hash: Python's own differs from process to process.
  entropy = (seed, zlib.crc32(stage.encode()))
  return _Clips(
    source,
    windows,
    resolution,
    crop or resolution,
    tuple(zoom),
    flip,
    max_bad,
    entropy=entropy,
    batch=batch,
    own=own,
    first=first,
    steps=steps,
    cache=cache,
    posterior=posterior,
  )


def name_clips(source, *, n: int, batch: int, **which) -> list[dict]:
  """Returns where the clips of global batch n come from, row by row.

  Args:
    source: a clip source.
    n: which batch of the stage.
    batch: clips of a batch, over all hosts.
    **which: as for `make_batches`: frames, stride, resolution, crop, zoom,
      seed, stage, flip, max_bad.

  Returns:
    [{'id', 'start'}]: the record in which a clip begins, and at which of its
    frames.
  """
  clips = _make_clips(
    source, batch=batch, own=batch, first=n * batch, steps=1, **which
  )
  names = []
  for row in range(batch):
    shot, start = clips[row]['place']
    entry, frames = clips.windows.locate(shot, start)[0]
    names.append(
      {'id': str(source.index['id'][entry]), 'start': int(frames[0])}
    )
  return names


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
  windows_lib.check_resolution(source, resolution)
  windows = windows_lib.find_windows(source, frames=frames, stride=stride)
  clips, places = [], []
  order = windows_lib.fixed_order(windows, seed)
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
  windows: windows_lib.Windows,
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
      clip = windows_lib.read_window(source, windows, shot, start, resolution)
    except windows_lib.UnreadableError as error:
      logging.warning(
        'Record %s cannot be read (%s): its clip is left out.',
        source.index['id'][error.entry],
        error.reason,
      )
      bad[error.entry] = error.reason
      if len(bad) > max_bad:
        raise windows_lib.too_many_bad(source, list(bad.items())) from error
      continue
    found = True
    yield shot, start, clip
  if not found:
    raise windows_lib.too_many_bad(source, list(bad.items()))


class Repeated(Iterator):
  """The same clips in every batch, with the interface of `Batches`.

  Row i of the global batch is clip i modulo their number.
  """

  bad_records = 0

  def __init__(self, clips, batch, process_index=0, process_count=1):
    own = batch // process_count
    rows = np.arange(process_index * own, (process_index + 1) * own)
    self._batch = {
      name: clips[name][rows % len(clips[name])] for name in ('video', 'label')
    }

  def __next__(self) -> dict[str, np.ndarray]:
    return dict(self._batch)

  def __enter__(self) -> 'Repeated':
    return self

  def __exit__(self, *unused):
    del unused
