"""Metrics of a run: rows of `metrics.jsonl`, and TensorBoard events.

`metrics.jsonl` is the record: one JSON object a row with `step`, `stage` and
the values. JSON has no NaN and no infinity: they are written as the strings
'nan', 'inf' and '-inf', which `read_rows` turns back into floats.

Local files are appended to. Nothing can be appended to in a bucket, so there
each writer keeps its own segment, `metrics.jsonl.00000`, `.00001` and so on,
which it uploads as a whole at every flush; `read_rows` joins them. Rows since
the last flush are lost if the run is killed, and written again by the one that
resumes: a checkpoint is preceded by a flush.
"""

from collections.abc import Callable, Mapping
import json
from typing import Any

from etils import epath
import numpy as np

from vdm.common import buckets
from vdm.common import files
from vdm.multihost import coordination
from vdm.training import event_files

NAME = 'metrics.jsonl'


def read_rows(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Returns the rows of a run in order; an incomplete last line is left out.

  Raises:
    ValueError: a complete line is corrupt.
  """
  rows = []
  for path in _files(epath.Path(workdir)):
    rows += _parse(path)
  return rows


def make_writer(
  workdir: epath.PathLike, tensorboard: bool
) -> 'Writer | Silent':
  """Returns the writer of a run; only the first process's writes anything."""
  if coordination.is_first():
    return Writer(workdir, tensorboard=tensorboard)
  return Silent()


class Silent:
  """A writer of nothing."""

  def __getattr__(self, name: str) -> Callable[..., None]:
    return lambda *args, **kwargs: None

  def __enter__(self) -> 'Silent':
    return self

  def __exit__(self, *unused) -> None:
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
      workdir: the run's folder, local or in a bucket.
      tensorboard: whether to write TensorBoard events too.
      append: whether files can be appended to; from the kind of path, if None.
    """
    self._workdir = epath.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    if append is None:
      append = not buckets.is_remote(self._workdir)
    self._append = append
    for path in _files(self._workdir):
      text = path.read_text()
      if _complete_lines(text) != text:
        files.write_text(path, _complete_lines(text))
    self._segment = None  # In a bucket: where this writer's rows go.
    self._lines: list[str] = []
    self._file = None
    self._events = None
    if tensorboard:
      self._events = event_files.EventFiles(self._workdir)

  def write(self, step: int, stage: str, scalars: Mapping[str, float]) -> None:
    """Adds one row; values may be arrays of one element."""
    values = {name: float(np.asarray(x).item()) for name, x in scalars.items()}
    line = _dump({'step': int(step), 'stage': stage} | values)
    if self._append:
      if self._file is None:
        self._file = (self._workdir / NAME).open('a')
      # A row is in the file when this returns: a killed run loses none.
      self._file.write(line)
      self._file.flush()
    else:
      self._lines.append(line)
    if self._events:
      self._events.write_scalars(int(step), values)

  def write_gifs(self, step: int, gifs: Mapping[str, bytes]) -> None:
    """Adds animations to TensorBoard, {tag: contents of a GIF file}."""
    if self._events:
      self._events.write_gifs(int(step), dict(gifs))

  def rewind(self, step: int, prefixes: tuple[str, ...] = ()) -> None:
    """Drops the rows past `step`; opening has dropped an incomplete one.

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
      files.write_text(path, ''.join(_dump(row) for row in kept))

  def flush(self) -> None:
    """Returns when everything written is in the files."""
    if not self._append and self._lines:
      if self._segment is None:
        used = sum(1 for _ in _files(self._workdir))
        self._segment = self._workdir / f'{NAME}.{used:05d}'
      files.write_text(self._segment, ''.join(self._lines))
    if self._events:
      self._events.flush()

  def close(self) -> None:
    """Flushes and closes the files."""
    self.flush()
    self._close_file()
    if self._events:
      self._events.close()

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _close_file(self) -> None:
    self.flush()
    # After a rewind, a bucket's rows go to a new segment.
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
  """Drops an incomplete last line, left by a process that was killed."""
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
