"""`starts.json`: when, with what and on what a run was started and resumed.

One entry for each start, the first one first. Nothing in there is read by
training; `vdm.report` and `vdm.compare` show it.
"""

from collections.abc import Sequence
import datetime
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from typing import Any

from etils import epath
import jax

from vdm.common import files
from vdm.multihost import coordination

NAME = 'starts.json'
LIBRARIES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def record(
  workdir: epath.Path, step: int, dataset: str, command: Sequence[str] = ()
) -> None:
  """Adds this start to the file, on the first process.

  Args:
    workdir: the run's folder.
    step: that training goes on from.
    dataset: fingerprint of the training data.
    command: arguments of the command that started the run, if any.
  """
  if not coordination.is_first():
    return
  devices = jax.devices()
  entry = {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'step': step,
    'command': list(command),
    'dataset': dataset,
    'devices': f'{len(devices)} x {devices[0].device_kind}',
    'processes': jax.process_count(),
    'python': platform.python_version(),
    'versions': {k: importlib.metadata.version(k) for k in LIBRARIES},
    'code': code_version(),
  }
  files.write_json(workdir / NAME, [*read(workdir), entry])


def read(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Returns the starts of a run; [] where none, or nothing legible, is there.

  Runs of earlier versions have none.
  """
  try:
    found = json.loads((epath.Path(workdir) / NAME).read_text())
  except (FileNotFoundError, ValueError):
    return []
  if not isinstance(found, list):
    return []
  return [entry for entry in found if isinstance(entry, dict)]


def code_version() -> str:
  """Returns the commit that the code is of, '' where git does not know.

  Of changed files it says ' with changes', not which.
  """
  root = pathlib.Path(__file__).resolve().parents[2]
  if not (root / '.git').exists():
    return ''
  try:
    commit = _git(root, 'rev-parse', 'HEAD')
    changed = _git(root, 'status', '--porcelain', '--', 'vdm', 'configs')
  except (OSError, subprocess.SubprocessError):
    return ''
  return commit[:12] + (' with changes' if changed else '')


def _git(root: pathlib.Path, *words: str) -> str:
  done = subprocess.run(
    ['git', *words],
    cwd=root,
    capture_output=True,
    text=True,
    timeout=10,
    check=True,
  )
  return done.stdout.strip()
