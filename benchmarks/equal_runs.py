"""How often runs that differ in the seed alone are called different.

  python benchmarks/equal_runs.py --runs sweeps/seeds \
      --record benchmarks/records/equal_runs.json

Draws two groups of runs again and again and compares them as `vdm.compare` does
two configurations with other seeds. Every verdict but "cannot tell" is wrong.
With twelve runs the draws share runs, so that their number is not that of
independent comparisons.
"""

import fnmatch
import os
import sys

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_RUNS = flags.DEFINE_string('runs', None, 'Folder of runs.', required=True)
_NAME = flags.DEFINE_string('name', '*', 'Which of them, as a pattern.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of a group.', lower_bound=2)
_DRAWS = flags.DEFINE_integer('draws', 20, 'Comparisons.', lower_bound=1)
_PRIMARY = flags.DEFINE_string(
  'primary', '', 'The number that decides; by default that of the data set.'
)
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def draw(values, primary, seeds, draws):
  """Compares groups that are drawn from equal runs.

  Args:
    values: {seed: {name: number}} of all runs.
    primary: the number that decides.
    seeds: runs of a group.
    draws: comparisons.

  Returns:
    A row for each: {'groups': the seeds of both, 'p' of the primary number,
    'primary': its verdict, 'others': {number: verdict} of the others that are
    called anything but "cannot tell", 'tested': their number}.
  """
  import numpy as np

  from vdm.reporting import comparison

  wrong = (comparison.DIFFERS, comparison.BETTER, comparison.WORSE)
  random = np.random.default_rng(0)
  rows = []
  for _ in range(draws):
    chosen = random.permutation(sorted(values))[: 2 * seeds].tolist()
    groups = chosen[:seeds], chosen[seeds:]
    judged = comparison.judge(
      [{seed: values[seed] for seed in group} for group in groups], primary
    )
    first, *others = judged
    rows.append(
      {
        'groups': groups,
        'p': first.get('p'),
        'primary': first['verdict'],
        'others': {
          row['number']: row['verdict']
          for row in others
          if row['test'] and row['verdict'] in wrong
        },
        'tested': sum(row['test'] is not None for row in others),
      }
    )
  return rows


def main(argv):
  del argv
  from vdm.reporting import compare_runs
  from vdm.reporting import groups
  from vdm.reporting import run_numbers
  from vdm.reporting import run_record

  found = [
    run_record.read(run)
    for run in compare_runs.find([_RUNS.value])
    if fnmatch.fnmatch(run.name, _NAME.value)
  ]
  if len(found) < 2 * _SEEDS.value:
    flag.stop(f'{len(found)} runs are fewer than two groups of --seeds.')
  alike = groups.make(found)
  if len(alike) > 1:
    flag.stop(
      'These runs differ in more than the seed: '
      + '; '.join(group.title for group in alike)
    )
  [group] = alike
  values = groups.numbers(group, run_numbers.common_budgets(found))
  primary = _PRIMARY.value or groups.default_primary(found[0])
  rows = draw(values, primary, _SEEDS.value, _DRAWS.value)
  for row in rows:
    print(*row['groups'], row['primary'], row['p'], row['others'])
  quiet = sum(row['primary'].endswith('cannot tell') for row in rows)
  silent = sum(not row['others'] for row in rows)
  print(
    f'{quiet} of {len(rows)} comparisons cannot tell by {primary}, {silent} '
    'by any other number.'
  )
  common.write(
    _RECORD.value,
    {
      **common.environment(),
      'primary': primary,
      'values': {seed: v[primary] for seed, v in sorted(values.items())},
      'cannot_tell': quiet,
      'cannot_tell_by_any_other': silent,
      'comparisons': rows,
    },
  )


if __name__ == '__main__':
  app.run(main)
