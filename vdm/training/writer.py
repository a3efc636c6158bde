"""Metrics of a run: rows of `metrics.jsonl`, and TensorBoard events.

`metrics.jsonl` is the record: one JSON object a row with `step`, `stage` and
the values. JSON has no NaN and no infinity: they are written as the strings
'nan', 'inf' and '-inf', which `read_rows` turns back into floats.

Local files are appended to. An object store cannot append, so there each
writer keeps its own segment, `metrics.jsonl.00000`, `.00001` and so on, which
it writes again as a whole at every flush; `read_rows` joins them. This way is
tested on local folders only, never on a real bucket.

TensorBoard's events go through clu, which needs some 15 s to import
TensorFlow: a background thread imports it and writes, so the training loop
never waits for it; `flush` and `close` do. Close the writer on every way out
(`with`): Python may crash when it ends while TensorFlow is being imported.
"""

from collections.abc import Mapping
import json
import os
import queue
import threading
from typing import Any

from absl import logging
from etils import epath
import numpy as np

from vdm.multihost import coordination

NAME = 'metrics.jsonl'


def read_rows(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Returns the rows of a run in order; a torn last line is left out.

  Raises:
    ValueError: a complete line is damaged.
  """
  rows = []
  for path in _files(epath.Path(workdir)):
    rows += _parse(path)
  return rows


def make_writer(workdir: epath.PathLike, tensorboard: bool):
  """Returns the writer of a run, which on all processes but one is silent."""
  if coordination.is_first():
    return Writer(workdir, tensorboard=tensorboard)
  return Silent()


class Silent:
  """A writer of nothing."""

  def write(self, step, stage, scalars):
    del step, stage, scalars

  def write_gifs(self, step, gifs):
    del step, gifs

  def rewind(self, step, prefixes=()):
    del step, prefixes

  def flush(self):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


class Writer:
  """Writes the metrics of one run; used by one process, from one thread."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    tensorboard: bool = True,
    append: bool | None = None,
  ):
    """Opens the metrics of `workdir`, which is made if it is not there.

    Args:
      workdir: the run's folder, local or on an object store.
      tensorboard: whether to write TensorBoard events too.
      append: whether files can be appended to; from the kind of path, if None.
    """
    self._workdir = epath.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    if append is None:
      append = '://' not in os.fspath(self._workdir)
    self._append = append
    for path in _files(self._workdir):
      text = path.read_text()
      if _complete_lines(text) != text:
        _replace(path, _complete_lines(text))
    self._segment = None  # Object stores: where this writer's rows go.
    self._lines: list[str] = []
    self._file = None
    self._tensorboard = _TensorBoard(self._workdir) if tensorboard else None

  def write(self, step: int, stage: str, scalars: Mapping[str, float]) -> None:
    """Adds one row; values may be arrays of one element."""
    values = {name: float(np.asarray(x).item()) for name, x in scalars.items()}
    row = {'step': int(step), 'stage': stage} | {
      name: x if np.isfinite(x) else str(x) for name, x in values.items()
    }
    line = json.dumps(row, allow_nan=False) + '\n'
    if self._append:
      if self._file is None:
        self._file = (self._workdir / NAME).open('a')
      # A row is in the file when this returns: a killed run loses none.
      self._file.write(line)
      self._file.flush()
    else:
      self._lines.append(line)
    if self._tensorboard:
      self._tensorboard.put('write_scalars', int(step), values)

  def write_gifs(self, step: int, gifs: Mapping[str, bytes]) -> None:
    """Adds animations to TensorBoard, {tag: contents of a GIF file}."""
    if self._tensorboard:
      self._tensorboard.put('write_gifs', int(step), dict(gifs))

  def rewind(self, step: int, prefixes: tuple[str, ...] = ()) -> None:
    """Drops the rows past `step`; opening has dropped a torn last line.

    A run that resumes from the checkpoint of `step` writes those rows again.

    Args:
      step: the last one to keep.
      prefixes: of its own rows, those with a value named so go too.

    Every file is replaced as a whole, by renaming. TensorBoard's events stay:
    it shows the newest of two values for one step.
    """
    self._close_file()
    for path in _files(self._workdir):
      kept = [
        row
        for row in _parse(path)
        if row['step'] < step
        or (row['step'] == step and not _has(row, prefixes))
      ]
      _replace(path, ''.join(_dump(row) for row in kept))

  def flush(self) -> None:
    """Returns when everything written is in the files."""
    if not self._append and self._lines:
      if self._segment is None:
        used = sum(1 for _ in _files(self._workdir))
        self._segment = self._workdir / f'{NAME}.{used:05d}'
      _replace(self._segment, ''.join(self._lines))
    if self._tensorboard:
      self._tensorboard.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    self.flush()
    self._close_file()
    if self._tensorboard:
      self._tensorboard.close()

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _close_file(self) -> None:
    self.flush()
    # After a rewind, an object store's rows go to a new segment.
    self._segment, self._lines = None, []
    if self._file is not None:
      self._file.close()
      self._file = None


def _files(workdir: epath.Path) -> list[epath.Path]:
  """Returns the file of appended rows, then the segments in order."""
  return sorted(
    path
    for path in workdir.glob(NAME + '*')
    if path.name == NAME or path.name.removeprefix(NAME + '.').isdigit()
  )


def _complete_lines(text: str) -> str:
  """Drops a torn last line: the process died while it wrote it."""
  return text[: text.rfind('\n') + 1]


def _parse(path: epath.Path) -> list[dict[str, Any]]:
  rows = []
  lines = _complete_lines(path.read_text()).splitlines()
  for number, line in enumerate(lines, start=1):
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{path}, line {number}, is damaged: {line!r}'
      ) from error
    rows.append(
      {
        name: float(x) if isinstance(x, str) and name != 'stage' else x
        for name, x in row.items()
      }
    )
  return rows


def _has(row: Mapping[str, Any], prefixes: tuple[str, ...]) -> bool:
  return any(name.startswith(prefixes) for name in row)


def _dump(row: Mapping[str, Any]) -> str:
  plain = {
    name: str(x) if isinstance(x, float) and not np.isfinite(x) else x
    for name, x in row.items()
  }
  return json.dumps(plain, allow_nan=False) + '\n'


def _replace(path: epath.Path, text: str) -> None:
  part = path.with_name(path.name + '.part')
  part.write_text(text)
  part.replace(path)


class _TensorBoard:
  """Hands calls to clu on a thread, which imports TensorFlow first."""

  def __init__(self, workdir: epath.Path):
    self._workdir = workdir
    self._calls: queue.Queue = queue.Queue()
    self._error: Exception | None = None
    self._thread: threading.Thread | None = None

  def put(self, name: str, step: int, values: dict[str, Any]) -> None:
    if self._thread is None:
      # A daemon: a writer that was never closed cannot keep a process alive.
      self._thread = threading.Thread(target=self._work, daemon=True)
      self._thread.start()
    self._calls.put((name, step, values))

  def flush(self) -> None:
    if self._thread is not None:
      self._calls.join()

  def close(self) -> None:
    if self._thread is not None:
      self._calls.put(None)
      self._thread.join()
      self._thread = None

  def _work(self) -> None:
    writer = None
    while (call := self._calls.get()) is not None:
      # After an error, calls are dropped: metrics.jsonl has the numbers.
      if self._error is None:
        try:
          writer = writer or _make_clu_writer(os.fspath(self._workdir))
          name, step, values = call
          if name == 'write_gifs':
            _write_gifs(writer, step, values)
          else:
            writer.write_scalars(step, values)
          if self._calls.empty():
            writer.flush()
        except Exception as error:
          self._error = error
          logging.warning(
            'TensorBoard stays empty from here on: %s: %s',
            type(error).__name__,
            error,
          )
      self._calls.task_done()
    if writer is not None:
      writer.close()
    self._calls.task_done()


def _make_clu_writer(workdir: str) -> Any:
  """Imports TensorFlow, without a GPU, and returns clu's writer."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  import tensorflow as tf

  # It would take the memory that training needs.
  tf.config.set_visible_devices([], 'GPU')
  from clu.metric_writers import summary_writer

  return summary_writer.SummaryWriter(workdir)


def _write_gifs(writer: Any, step: int, gifs: Mapping[str, bytes]) -> None:
  """Writes image summaries that TensorBoard plays.

  clu's `write_videos` does nothing; an image summary holds encoded images
  after their width and height, which nothing reads.
  """
  from tensorboard.plugins.image import metadata

  writer.write_summaries(
    step,
    {
      tag: np.array([b'0', b'0', content], object)
      for tag, content in gifs.items()
    },
    {
      tag: metadata.create_summary_metadata(
        display_name=tag, description='', converted_to_tensor=None
      )
      for tag in gifs
    },
  )
