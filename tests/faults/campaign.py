"""A campaign of kills, a hundred by default, and a table of them.

  python tests/faults/campaign.py --kills 100 \
      --record benchmarks/records/kills.json

Each run is killed a few times, in the phases that have been hit least often so
far, and then trained to its end; everything that it logged and ends with is
compared with one uninterrupted run. The record is written after every run, and
the same command continues it; `--minutes` ends it early. Linux only: surviving
processes are found in /proc.
"""

import collections
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app
from absl import flags
import harness
import kills
import numpy as np
import records

RAREST = 4  # Phases that a run is killed in, twice in each.


_KILLS = flags.DEFINE_integer('kills', 100, 'How many.')
_RECORD = flags.DEFINE_string(
  'record', None, 'JSON file, continued if it exists.', required=True
)
_SIGNALS = flags.DEFINE_list(
  'signals', ['SIGKILL'], 'SIGTERM,SIGINT: asks the run to stop instead.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments of the kills.')
_MINUTES = flags.DEFINE_float('minutes', 1e9, 'Starts no run after these.')
_FOLDER = flags.DEFINE_string(
  'folder', None, 'For runs and compiled programs; temporary by default.'
)


def main(argv):
  del argv
  folder = pathlib.Path(_FOLDER.value or tempfile.mkdtemp(prefix='faults_'))
  folder.mkdir(parents=True, exist_ok=True)
  record = records.read(_RECORD.value) or {
    **records.environment(),
    'what': 'kills',
    'seconds': 0.0,
    'runs': [],
  }
  start = time.monotonic()
  reference = load_reference(folder)
  while len(done(record)) < _KILLS.value:
    if time.monotonic() - start > 60 * _MINUTES.value:
      break
    record['runs'].append(one_run(folder, record, reference))
    record['seconds'] += record['runs'][-1]['seconds']
    record['kills'] = len(done(record))
    record['table'] = tabulate(record)
    records.write(_RECORD.value, record)
    print(record['runs'][-1])
  print(record.get('table', 'No kills yet.'))
  wrong = [x for x in (*done(record), *record['runs']) if x['problems']]
  print(f'{len(done(record))} kills, {len(wrong)} with problems.')
  sys.exit(bool(wrong))


def load_reference(folder):
  """Returns the result of the uninterrupted run, trained once in a folder."""
  if (folder / 'alone/final/step.txt').exists():
    return harness.result(folder / 'alone')
  return kills.uninterrupted(folder / 'alone', folder / 'cache')


def one_run(folder, record, reference):
  """Kills one run a few times; returns its entry in the record."""
  number = len(record['runs'])
  rng = np.random.default_rng((_SEED.value, number))
  counts = collections.Counter(kill['hit'] for kill in done(record))
  # The rarest first, ties in random order.
  phases = sorted(rng.permutation(harness.PHASES), key=lambda p: counts[p])
  plan = kills.random_plan(rng, 2 * phases[:RAREST], _SIGNALS.value)
  for old in folder.glob(f'run_{number}*'):  # Of an interrupted campaign.
    shutil.rmtree(old)
  start = time.monotonic()
  found, problems = kills.run_with_kills(
    folder / f'run_{number}', folder / 'cache', reference, plan, rng
  )
  return {
    'seed': [_SEED.value, number],
    'seconds': round(time.monotonic() - start, 1),
    'kills': [vars(kill) for kill in found],
    'problems': problems,
  }


def done(record):
  """Returns all kills so far."""
  return [kill for run in record['runs'] for kill in run['kills']]


def tabulate(record):
  """Returns the table of kills by the phase that was hit."""
  found, rows = done(record), []
  groups = {
    phase: [k for k in found if k['hit'] == phase]
    for phase in (*harness.PHASES, 'start', 'end')
  }
  groups['with worker processes'] = [k for k in found if k['workers']]
  groups['all'] = found
  for name, group in groups.items():
    if not group:
      continue
    behind = [k['logged'] - k['resumed'] for k in group]
    newest = sum(k['resumed'] == k['saved'] for k in group)
    same = sum(not k['problems'] for k in group)
    rows.append((name, len(group), newest, max(behind), same))
  identical = sum(not run['problems'] for run in record['runs'])
  return (
    records.table(
      (
        'phase',
        'kills',
        'resumed from the newest saved step',
        'steps behind, at most',
        'without a difference',
      ),
      rows,
    )
    + f'\n\n{identical} of {len(record["runs"])} runs ended bit-identical, '
    + f'after {len(found)} kills.'
  )


if __name__ == '__main__':
  app.run(main)
