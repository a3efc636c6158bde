"""The same run on 1, 2 and 4 processes, 1 to 8 devices, and meshes: a table.

  python tests/faults/elastic.py --record benchmarks/records/elastic.json

Every case trains the tiny run from the first step to the last video; the last
case changes from 2 processes to 1 to 4 on the way, stopped by a signal to one
of them. Clips must be the same bytes. Losses may differ by the order of float32
additions: see `several.TOLERANCE`.
"""

import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app
from absl import flags
import harness
import records
import several

_RECORD = flags.DEFINE_string(
  'record', None, 'JSON file, continued if it exists.', required=True
)
_MINUTES = flags.DEFINE_float('minutes', 1e9, 'Starts no case after these.')
_FOLDER = flags.DEFINE_string(
  'folder', None, 'For runs and compiled programs; temporary by default.'
)

# (processes, devices of each, fsdp).
CASES = [
  (1, 1, 1),
  (1, 8, 1),
  (1, 8, 8),
  (1, 8, 4),
  (2, 1, 1),
  (2, 1, 2),
  (4, 1, 1),
  (4, 1, 4),
  (2, 4, 1),
  (2, 4, 4),
  (4, 2, 4),  # A parameter is sharded over two processes, with two copies.
  (4, 2, 8),
]
CHANGING = [(2, 4, 4), (1, 8, 4), (4, 2, 2)]


def compare(workdir, reference):
  """Returns (largest relative loss difference, whether batches are equal)."""
  found = several.rows(workdir)
  wanted = several.rows(reference)
  return (
    several.largest_difference(found, wanted),
    several.batches(workdir) == several.batches(reference),
  )


def run_changing(workdir, cache):
  """Trains one run with 2, 1, then 4 processes; returns where it stopped."""
  stops = []
  for case, stop_at in zip(CHANGING, (7, 12, None)):
    codes = several.run_case(workdir, cache, case, stop_at)
    assert set(codes) == ({75} if stop_at else {0}), codes
    stops.append(max(harness.complete_steps(workdir)))
    # Each process writes a file of its own rows of a batch.
    folder = pathlib.Path(workdir) / f'part_{len(stops)}'
    folder.mkdir()
    for path in pathlib.Path(workdir).glob('crc_*.jsonl'):
      shutil.move(path, folder / path.name)
  return stops


def main(argv):
  del argv
  folder = pathlib.Path(_FOLDER.value or tempfile.mkdtemp(prefix='elastic_'))
  record = records.read(_RECORD.value) or {
    **records.environment(),
    'what': 'elastic',
    'tolerance': several.TOLERANCE,
    'cases': {},
  }
  start = time.monotonic()
  for case in (*CASES, 'changing'):
    name = case if case == 'changing' else 'x'.join(map(str, case))
    late = time.monotonic() - start > 60 * _MINUTES.value
    if name in record['cases'] or late:
      continue
    workdir = folder / name
    shutil.rmtree(workdir, ignore_errors=True)
    record['cases'][name] = measure(workdir, folder, case)
    record['table'] = tabulate(record['cases'])
    records.write(_RECORD.value, record)
    print(name, record['cases'][name], flush=True)
  print(record['table'])
  sys.exit(not all(case['sound'] for case in record['cases'].values()))


def measure(workdir, folder, case):
  """Runs one case; returns its entry in the record."""
  cache, start = folder / 'cache', time.monotonic()
  stops = None
  if case == 'changing':
    stops = run_changing(workdir, cache)
    parts = {}
    for part in sorted(workdir.glob('part_*')):
      parts |= several.batches(part)
    same_batches = parts == several.batches(folder / '1x1x1')
    rows = [several.rows(x) for x in (workdir, folder / '1x1x1')]
    difference = several.largest_difference(*rows)
  else:
    several.run_case(workdir, cache, case)
    difference, same_batches = compare(workdir, folder / '1x1x1')
  return {
    'case': CHANGING if case == 'changing' else case,
    'stopped_at': stops,
    'difference': difference,
    'same_batches': same_batches,
    'sound': bool(same_batches and difference < several.TOLERANCE),
    'seconds': round(time.monotonic() - start, 1),
  }


def tabulate(cases):
  rows = []
  for name, found in cases.items():
    case = found['case']
    if name == 'changing':
      columns = [' -> '.join(str(c[i]) for c in case) for i in range(3)]
      columns[2] = f'fsdp {columns[2]}; stopped at {found["stopped_at"][:2]}'
    else:
      processes, devices, fsdp = case
      data = processes * devices // fsdp
      columns = [processes, devices, f'data {data}, fsdp {fsdp}']
    rows.append(
      (
        *columns,
        f'{found["difference"]:.1e}',
        'yes' if found['same_batches'] else 'NO',
      )
    )
  return records.table(
    (
      'processes',
      'devices of each',
      'mesh',
      'largest relative loss difference',
      'batches identical',
    ),
    rows,
  )


if __name__ == '__main__':
  app.run(main)
