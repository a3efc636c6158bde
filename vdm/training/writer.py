"""Metrics of a run: rows of `metrics.jsonl`, and what shows them elsewhere.

`metrics.jsonl` is the record: one JSON object a row with `step`, `stage` and
the values. JSON has no NaN and no infinity: they are written as the strings
'nan', 'inf' and '-inf', which `read_rows` turns back into floats.

Local files are appended to. Nothing can be appended to in a bucket, so there
each writer keeps its own segment, `metrics.jsonl.00000`, `.00001` and so on,
which it uploads as a whole at every flush; `read_rows` joins them. Rows since
the last flush are lost if the run is killed, and written again by the one that
resumes: a checkpoint is preceded by a flush.

What is written here also goes to the destinations that the configuration names
(`vdm.training.destinations`): TensorBoard, Weights & Biases, Trackio.
"""

from collections.abc import Callable, Mapping, Sequence
import json
from typing import Any

from etils import epath
from ml_collections import ConfigDict
import numpy as np

from vdm.common import buckets
from vdm.common import files
from vdm.config import serialize
from vdm.multihost import coordination
from vdm.training.destinations import background
from vdm.training.destinations import chosen

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
  config: ConfigDict, workdir: epath.PathLike
) -> 'Writer | Silent':
  """Returns the writer of a run; only the first process's writes anything.

  Args:
    config: the run's, which the destinations are told.
    workdir: its folder.
  """
  if not coordination.is_first():
    return Silent()
  workdir = epath.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  return Writer(workdir, chosen.start(config, workdir))


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
    destinations: Sequence[background.Background] = (),
    *,
    append: bool | None = None,
  ):
    """Opens the metrics of `workdir`, which is made if it is not there.

    Args:
      workdir: the run's folder, local or in a bucket.
      destinations: where everything goes too.
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
    self._destinations, self._closed = destinations, False

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
    self._tell('write', int(step), stage, values)

  def write_preview(self, step: int, preview: background.Preview) -> None:
    """Shows a step's videos at the destinations."""
    self._tell('write_preview', int(step), preview)

  def write_final(self, step: int, folder: epath.Path) -> None:
    """Shows the run's last numbers and videos there, from its `final/`."""
    scores = {
      f'final/{name.replace(".", "/")}': value
      for name, value in serialize.flatten(
        json.loads((folder / 'metrics.json').read_text())
      ).items()
      if isinstance(value, (int, float)) and not name.startswith('protocol.')
    }
    self._tell('write_final', int(step), scores, folder / 'grid.mp4')

  def rewind(self, step: int, prefixes: tuple[str, ...] = ()) -> None:
    """Drops the rows past `step`; opening has dropped an incomplete one.

    A run that resumes from the checkpoint of `step` writes those rows again.

    Args:
      step: the last one to keep.
      prefixes: of its own rows, those with a value named so go too.

    Every file is replaced as a whole, by renaming. What the destinations have
    stays: the rows that follow are the same.
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
    for destination in self._destinations:
      destination.flush()

  def close(self, code: int = 0) -> None:
    """Flushes and closes everything; the first call counts.

    Args:
      code: exit code of the command.
    """
    if self._closed:
      return
    self._closed = True
    self._close_file()
    for destination in self._destinations:
      destination.close(code)

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, error: type[BaseException] | None, *_) -> None:
    self.close(0 if error is None else 1)

  def _tell(self, method, *args) -> None:
    for destination in self._destinations:
      destination.call(method, *args)

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
