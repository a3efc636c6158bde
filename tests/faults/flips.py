"""Flips bits of a run's newest checkpoint, and resumes from it.

  python tests/faults/flips.py --flips 200 --losses 20 \
      --record benchmarks/records/damage.json

Each case flips one bit of one file, the files taking turns, or truncates or
deletes a file. Then the run is resumed and trained to its end; with
--train_every 10 only every tenth case, and otherwise the state that it would
resume from is compared, which is several times faster. Damage is *caught* if
the step is skipped for the one before, and *harmless* if the step is used
nevertheless. Either way the state that the run resumes from, and at the end the
last checkpoint, must equal the undamaged ones to the bit: damage that is
neither is *silent* and fails.
"""

import collections
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from absl import app
from absl import flags
import damage
import harness
import records

_FLIPS = flags.DEFINE_integer('flips', 200, 'Single bits, one at a time.')
_LOSSES = flags.DEFINE_integer('losses', 20, 'Files truncated or deleted.')
_RECORD = flags.DEFINE_string(
  'record', None, 'JSON file, continued if it exists.', required=True
)
_TRAIN_EVERY = flags.DEFINE_integer(
  'train_every', 1, 'Cases from one that is trained to its end to the next.'
)
_MINUTES = flags.DEFINE_float('minutes', 1e9, 'Starts no case after these.')
_FOLDER = flags.DEFINE_string(
  'folder', None, 'For runs and compiled programs; temporary by default.'
)


def main(argv):
  del argv
  folder = pathlib.Path(_FOLDER.value or tempfile.mkdtemp(prefix='damage_'))
  folder.mkdir(parents=True, exist_ok=True)
  record = records.read(_RECORD.value) or {
    **records.environment(),
    'what': 'damage',
    'seconds': 0.0,
    'cases': [],
  }
  os.environ.update(harness.QUICK)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'cache')
  start = time.monotonic()
  cases = damage.Cases(folder)
  kinds = ['flip'] * _FLIPS.value + ['cut', 'delete'] * (_LOSSES.value // 2)
  for number in range(len(record['cases']), len(kinds)):
    if time.monotonic() - start > 60 * _MINUTES.value:
      break
    train = number % _TRAIN_EVERY.value == 0
    case = cases.run(kinds[number], number, train)
    record['cases'].append(case)
    record['seconds'] = round(record['seconds'] + case['seconds'], 1)
    record['table'] = tabulate(record['cases'])
    records.write(_RECORD.value, record)
    print(number, case, flush=True)
  print(record['table'])
  sys.exit(any(case['outcome'] == 'silent' for case in record['cases']))


def tabulate(cases):
  rows = []
  groups = collections.defaultdict(list)
  for case in cases:
    groups[case['kind'], 'all files'].append(case['outcome'])
    top = case['file'].partition('/')[0]
    groups[case['kind'], top].append(case['outcome'])
  for (kind, name), outcomes in sorted(groups.items()):
    counts = [outcomes.count(x) for x in ('caught', 'harmless', 'silent')]
    rows.append((kind, name, len(outcomes), *counts))
  return records.table(
    ('damage', 'in', 'times', 'caught', 'harmless', 'silent'), rows
  )


if __name__ == '__main__':
  app.run(main)
