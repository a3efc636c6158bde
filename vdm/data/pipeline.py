"""Training batches through Grain.

The n-th batch of a stage is a pure function of (data set, seed, stage, global
batch, n): `clip_reader` draws all that is random about a clip from its number,
before processes, workers and threads share the work. So the batches are the
same bytes for any number of them, and a run resumes by asking for `start=n`.

A clip carries the names of the records that could not be read in its place, so
the consumer counts and logs them when the batch is used, and a run stops at the
same step for any number of workers.

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import weakref

from absl import flags
from absl import logging
import grain
import numpy as np

from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.data import latent_cache
from vdm.data import windowing

_ENDLESS = 2**40  # Batches; no run is longer.


@dataclasses.dataclass(frozen=True)
class _Rows:
  """A process's rows of the batches in order: the source that Grain reads.

  Attributes:
    clips: of the stage.
    batch: rows of a global batch.
    own: of those, how many are this process's.
    first: number of this process's first clip.
    steps: batches until the end.
  """

  clips: clip_reader.TrainingClips
  batch: int
  own: int
  first: int
  steps: int

  def __len__(self) -> int:
    return self.steps * self.own

  def __getitem__(self, index: int) -> clip_reader.Clip:
    step, row = divmod(int(index), self.own)
    return self.clips.read(self.first + step * self.batch + row)


def _stack(clips: Sequence[clip_reader.Clip]) -> dict:
  names = clips[0].arrays
  return {
    **{name: np.stack([clip.arrays[name] for clip in clips]) for name in names},
    'bad': [one for clip in clips for one in clip.bad],
  }


def _start_worker(index: int, count: int):
  """Makes a worker process end with its trainer, however that ends."""
  del index, count
  # Ctrl-C and a scheduler's SIGTERM reach every process of the job; the
  # trainer decides what they mean, and closes its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  signal.signal(signal.SIGUSR1, signal.SIG_IGN)
  parent = multiprocessing.parent_process().pid

  # A trainer that is killed closes nothing. (PR_SET_PDEATHSIG would signal the
  # end of the thread that started this process, and Grain starts it in one.)
  def watch():
    while os.getppid() == parent:
      time.sleep(0.5)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _close(live: list[grain.DatasetIterator]):
  live.pop().close()


class Batches(Iterator):
  """This process's rows of a stage's batches; a context manager.

  Attributes:
    bad_records: how often a record had to be replaced in the batches returned
      so far, each occurrence counted.
  """

  def __init__(
    self,
    dataset: grain.IterDataset,
    source: builders.ClipSource,
    max_bad: int,
  ):
    self.bad_records = 0
    self._source, self._max_bad = source, max_bad
    self._reasons = {}
    self._live = [iter(dataset)]
    # Also at the interpreter's exit: iterators of Grain that are still alive
    # then print tracebacks, so no reference to one may be left.
    self._finalizer = weakref.finalize(self, _close, self._live)
    self._live[0].start_prefetch()

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns {'video': uint8 [b t h w 3], 'label': int32 [b]} and scalars.

    With a reader of captions there is also what it returns of each of them.
    With a latent cache, 'mean' and perhaps 'logvar', float16 [b t h w c],
    replace 'video'.

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
    # What a worker sent is in shared memory, which is released only with the
    # array: copy it.
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
          'Record %s cannot be read (%s): a clip of the next shot replaces it.',
          self._source.index['id'][entry],
          reason,
        )
    if len(self._reasons) > self._max_bad:
      raise clip_reader.too_many_bad(self._source, [*self._reasons.items()])

  def close(self):
    """Stops threads and worker processes; may be called again."""
    self._finalizer()

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *unused):
    self.close()


def make_batches(
  source: builders.ClipSource,
  spec: clip_spec.ClipSpec,
  *,
  start: int = 0,
  stop: int | None = None,
  cache: latent_cache.Cache | None = None,
  posterior: bool = False,
  texts: vocabulary.Reader | None = None,
  process_index: int = 0,
  process_count: int = 1,
  threads: int = 4,
  workers: int = 0,
) -> Batches:
  """Returns a process's rows of batches `start`, `start + 1`, ... of a stage.

  Args:
    source: a clip source, from `builders.open_source`.
    spec: the clips of the stage.
    start: the first batch.
    stop: the batch before which to end; None: never.
    cache: of the source's latents, which are returned in place of frames: of
      the same windows, mirrored where those are. It is of whole frames.
    posterior: return the cache's log-variances, too.
    texts: reads the captions; None: these are not returned.
    process_index: this process, which gets rows `process_index * batch /
      process_count` and following. Its unreadable records are counted from
      this call on.
    process_count: processes.
    threads: that decode, in each process; each makes whole batches. 0: none,
      a batch is made when it is asked for.
    workers: processes that decode; 0: this one.

  Raises:
    ValueError: the data set cannot give such batches.
    RuntimeError: absl's flags are not parsed, which worker processes need.
  """
  if spec.batch % process_count:
    raise ValueError(
      f'A batch of {spec.batch} cannot be shared evenly by {process_count} '
      'processes: make it a multiple.'
    )
  if workers and not flags.FLAGS.is_parsed():
    raise RuntimeError(
      'Worker processes need parsed absl flags: start through absl.app.run, '
      'call absl.flags.FLAGS.mark_as_parsed(), or set data.workers=0.'
    )
  windows = windowing.find_windows(source, spec)
  own = spec.batch // process_count
  rows = _Rows(
    clip_reader.TrainingClips(source, windows, cache, posterior, texts),
    batch=spec.batch,
    own=own,
    first=start * spec.batch + process_index * own,
    steps=_ENDLESS if stop is None else max(0, stop - start),
  )
  dataset = (
    grain.MapDataset.source(rows)
    .batch(own, drop_remainder=True, batch_fn=_stack)
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
  return Batches(dataset, source, spec.max_bad)


class RepeatedBatches(Iterator):
  """The same clips in every batch, with the interface of `Batches`.

  Row i of the global batch is clip i modulo their number.
  """

  bad_records = 0

  def __init__(
    self,
    clips: dict[str, np.ndarray],
    batch: int,
    process_index: int = 0,
    process_count: int = 1,
  ):
    """Takes all but what says where they are of `eval_clips.load_clips`."""
    own = batch // process_count
    rows = process_index * own + np.arange(own)
    self._batch = {
      name: values[rows % len(values)]
      for name, values in clips.items()
      if name not in eval_clips.PLACES
    }

  def __next__(self) -> dict[str, np.ndarray]:
    return dict(self._batch)

  def __enter__(self) -> 'RepeatedBatches':
    return self

  def __exit__(self, *unused):
    del unused
