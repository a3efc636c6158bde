"""The whole campaign of kills: a hundred of them, and a table.

  python tests/faults/campaign.py --kills 100 \
      --record benchmarks/records/kills.json

Runs are killed a few times each, in the phases that have been hit the fewest
times so far, and then go on to their end; all they ever logged and all they
end with is compared with one run that was left alone. The record is written
after every run, and the same command goes on with it; `--minutes` ends early.
Linux only: it looks for surviving processes in /proc.
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
import kills as kills_lib
import numpy as np
import records

RAREST = 4  # Phases that a run is killed in, twice in each.


_KILLS = flags.DEFINE_integer('kills', 100, 'How many.')
_RECORD = flags.DEFINE_string(
  'record', None, 'JSON file, which is gone on with.', required=True
)
_SIGNALS = flags.DEFINE_list(
  'signals', ['SIGKILL'], 'SIGTERM,SIGINT: asks to stop instead.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')
_MINUTES = flags.DEFINE_float('minutes', 1e9, 'Begins no run after these.')
_FOLDER = flags.DEFINE_string(
  'folder', None, 'For runs and compiled programs; a temporary one.'
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
  began = time.monotonic()
  reference = load_reference(folder)
  while len(done(record)) < _KILLS.value:
    if time.monotonic() - began > 60 * _MINUTES.value:
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
  """The uninterrupted run; made once in a folder."""
  if (folder / 'alone/final/step.txt').exists():
    return harness.result(folder / 'alone')
  return kills_lib.uninterrupted(folder / 'alone', folder / 'cache')


def one_run(folder, record, reference):
  """Kills one run a few times; returns its part of the record."""
  number = len(record['runs'])
  rng = np.random.default_rng((_SEED.value, number))
  counts = collections.Counter(kill['hit'] for kill in done(record))
  # The rarest first; ties in an order of their own.
  phases = sorted(rng.permutation(harness.PHASES), key=lambda p: counts[p])
  plan = kills_lib.random_plan(rng, 2 * phases[:RAREST], _SIGNALS.value)
  for left in folder.glob(f'run_{number}*'):  # By a campaign that was cut off.
    shutil.rmtree(left)
  began = time.monotonic()
  kills, problems = kills_lib.run_with_kills(
    folder / f'run_{number}', folder / 'cache', reference, plan, rng
  )
  return {
    'seed': [_SEED.value, number],
    'seconds': round(time.monotonic() - began, 1),
    'kills': [vars(kill) for kill in kills],
    'problems': problems,
  }


def done(record):
  """All kills so far."""
  return [kill for run in record['runs'] for kill in run['kills']]


def tabulate(record):
  """Kills by the phase that was hit."""
  kills, rows = done(record), []
  groups = {
    phase: [k for k in kills if k['hit'] == phase]
    for phase in (*harness.PHASES, 'start', 'end')
  }
  groups['with worker processes'] = [k for k in kills if k['workers']]
  groups['all'] = kills
  for name, group in groups.items():
    if not group:
      continue
    behind = [k['logged'] - k['resumed'] for k in group]
    newest = sum(k['resumed'] == k['saved'] for k in group)
    sound = sum(not k['problems'] for k in group)
    rows.append((name, len(group), newest, max(behind), sound))
  whole = sum(not run['problems'] for run in record['runs'])
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
    + f'\n\n{whole} of {len(record["runs"])} runs ended bit-identical, after '
    + f'{len(kills)} kills.'
  )


if __name__ == '__main__':
  app.run(main)
