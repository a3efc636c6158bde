"""What a run has written into its folder, as far as it is there.

A run may be training, killed, finished or of an earlier version. What is
missing is None or empty, with a line in `problems` where something is wrong.
"""

import json
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict
import numpy as np

from vdm import evaluation
from vdm.common import buckets
from vdm.common import errors
from vdm.config import schema
from vdm.config import serialize
from vdm.media import samples
from vdm.training import spent
from vdm.training import stages
from vdm.training import starts
from vdm.training import writer

CONFIG = 'config.json'
FINAL, CARD, AUTOENCODER, DIAGNOSIS = evaluation.NUMBERS
_FROZEN = 'autoencoder/config.json'


class Record(NamedTuple):
  """A run's files, read.

  Attributes:
    workdir: the folder.
    config: with the keys that it did not know at their defaults.
    label_names: of the classes.
    rows: of the log, in order.
    totals: {name of `spent.NAMES`: sums at each row}.
    starts: see `starts`.
    numbers: {FINAL, CARD, AUTOENCODER, DIAGNOSIS: content} of the files that
      are there.
    autoencoder: fingerprint of the one it works in; '' if there is none yet.
    problems: sentences about files that cannot be read.
  """

  workdir: epath.Path
  config: ConfigDict
  label_names: list[str]
  rows: list[dict[str, Any]]
  totals: dict[str, np.ndarray]
  starts: list[dict[str, Any]]
  numbers: dict[str, dict[str, Any]]
  autoencoder: str
  problems: list[str]

  @property
  def steps(self) -> int:
    """Global steps that the configuration asks for."""
    return stages.spans(self.config)[-1].stop

  @property
  def step(self) -> int:
    """The last step that is logged."""
    return max((row['step'] for row in self.rows), default=0)

  @property
  def is_finished(self) -> bool:
    """Whether all that the run makes is there."""
    last = stages.spans(self.config)[-1].stage
    if last.objective == 'autoencoder':
      return AUTOENCODER in self.numbers and self.step >= self.steps
    done = self.workdir / 'final' / samples.FINAL
    return done.exists() and done.read_text().strip() == str(self.steps)


def is_run(folder: epath.PathLike) -> bool:
  """Returns whether a folder is that of a run which has begun."""
  return (epath.Path(folder) / CONFIG).exists()


def read(workdir: epath.PathLike) -> Record:
  """Reads a run's folder, local or in a bucket.

  Raises:
    UsageError: it is not the folder of a run.
  """
  workdir = buckets.given(workdir, '--workdir')
  if not is_run(workdir):
    raise errors.UsageError(
      f'{workdir} is not the folder of a run: it has no {CONFIG}.'
    )
  config = schema.complete(serialize.load(workdir / CONFIG))
  if not config.train.order:
    raise errors.UsageError(f'{workdir}/{CONFIG} names no stage.')
  problems, numbers = [], {}
  try:
    rows = writer.read_rows(workdir)
  except ValueError as error:
    rows = []
    problems.append(f'The log cannot be read: {error}')
  for name in (*evaluation.NUMBERS, _FROZEN):
    try:
      content = json.loads((workdir / name).read_text())
      if not isinstance(content, dict):
        raise ValueError('it is no JSON object.')
      numbers[name] = content
    except FileNotFoundError:
      continue
    except ValueError as error:
      problems.append(f'{name} cannot be read: {error}')
  return Record(
    workdir=workdir,
    config=config,
    label_names=serialize.load_label_names(workdir / CONFIG),
    rows=rows,
    totals=spent.totals(rows),
    starts=starts.read(workdir),
    numbers={k: v for k, v in numbers.items() if k != _FROZEN},
    autoencoder=str(numbers.get(_FROZEN, {}).get('fingerprint', '')),
    problems=problems,
  )
