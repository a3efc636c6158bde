"""Finds runs, compares them, and writes compare.json and compare.html."""

from collections.abc import Sequence
import re

from etils import epath

from vdm.common import buckets
from vdm.common import errors
from vdm.common import files
from vdm.reporting import comparison
from vdm.reporting import comparison_page
from vdm.reporting import comparison_text
from vdm.reporting import run_record

DEPTH = 3  # Folders below a folder of runs, at most.
JSON, PAGE = 'compare.json', 'compare.html'


def find(names: Sequence[epath.PathLike]) -> list[epath.Path]:
  """Returns the folders of runs, those in folders sorted by name.

  Raises:
    UsageError: a name is neither a run nor a folder of runs.
  """
  found = []
  for name in names:
    path = buckets.given(name)
    if not path.exists():
      raise errors.UsageError(f'There is no folder {path}.')
    runs = _below(path, DEPTH)
    if not runs:
      raise errors.UsageError(
        f'{path} is neither a run nor a folder of runs: none in it has a '
        f'{run_record.CONFIG}.'
      )
    found += [run for run in runs if run not in found]
  return found


def compare(
  runs: Sequence[epath.PathLike], out: epath.PathLike, primary: str = ''
) -> str:
  """Compares runs, writes the results and returns them as text.

  Args:
    runs: folders of runs, those of the baseline first.
    out: folder to write to.
    primary: see `comparison.make`.

  Raises:
    UsageError: a folder is no run, or there is nothing to compare.
  """
  out = buckets.given(out, '--out')
  records = [run_record.read(run) for run in runs]
  content = comparison.make(records, primary)
  out.mkdir(parents=True, exist_ok=True)
  # JSON has no NaN: whatever is not finite was left out before.
  files.write_json(out / JSON, content, allow_nan=False)
  files.write_text(out / PAGE, comparison_page.make(content, records))
  return comparison_text.text(content)


def _below(path: epath.Path, depth: int) -> list[epath.Path]:
  """Returns the runs in a folder, or the folder itself if it is one."""
  if run_record.is_run(path):
    return [path]
  if not depth:
    return []
  folders = sorted((p for p in path.iterdir() if p.is_dir()), key=_natural)
  return [run for folder in folders for run in _below(folder, depth - 1)]


def _natural(path: epath.Path) -> list[tuple[int, float, str]]:
  """Sorts numbers in names as numbers: seed_2 comes before seed_10."""
  parts = re.split(r'(\d+(?:\.\d+)?(?:e-?\d+)?)', path.name)
  return [
    (0, float(part), '') if i % 2 else (1, 0.0, part)
    for i, part in enumerate(parts)
    if part
  ]
