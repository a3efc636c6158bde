"""Compares groups of runs number by number: better, worse, or not known.

The first group is the baseline, and every other one is compared with it. One
number, the primary one, is named before any is looked at; it decides at
`seed_tests.LEVEL`. With several groups its tests are corrected for their
number, and so are, together, those of all other numbers (Holm).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vdm.common import errors
from vdm.config import suggest
from vdm.metrics import seed_tests
from vdm.reporting import groups
from vdm.reporting import run_numbers
from vdm.reporting import run_record

# Kinds of verdicts.
SAME, DIFFERS, BETTER, WORSE = 'same', 'differs', 'better', 'worse'
UNKNOWN, INCOMPARABLE = 'unknown', 'incomparable'

Values = Mapping[int, Mapping[str, float]]  # {seed: {name: number}}.


def make(
  records: Sequence[run_record.Record], primary: str = ''
) -> dict[str, Any]:
  """Compares runs, and returns what `compare.json` holds.

  Args:
    records: at least two runs, those of the baseline first.
    primary: the number that decides; by default that of the data set.

  Raises:
    UsageError: there is nothing to compare, or no such number.
  """
  found = groups.make(records)
  if len(found) < 2:
    raise errors.UsageError(
      f'All {len(records)} runs have one configuration but for the seed: name '
      'runs of another one, too.'
    )
  budgets = run_numbers.common_budgets(records)
  measured = [groups.measured(group, budgets) for group in found]
  values = [groups.finite(runs) for runs in measured]
  primary = primary or groups.default_primary(records[0])
  known = _check_primary(primary, found, values)
  obstacles = {
    (i, name): groups.obstacle(found[0], other, name)
    for i, other in enumerate(found[1:], 1)
    for name in known
  }
  return {
    'primary': primary,
    'level': seed_tests.LEVEL,
    'budgets': budgets,
    'groups': [
      {
        'name': group.name,
        'differs': {k: str(v) for k, v in group.values.items()},
        'seeds': group.seeds,
        'runs': [str(record.workdir) for record in group.records],
        'finished': [record.is_finished for record in group.records],
      }
      for group in found
    ],
    'notes': [
      *notes(records, found),
      *_not_finite(found, measured),
      *(f'{run} has no {primary}.' for run in _without(primary, found, values)),
    ],
    'numbers': judge(values, primary, obstacles),
  }


def judge(
  values: Sequence[Values],
  primary: str,
  obstacles: Mapping[tuple[int, str], str] | None = None,
) -> list[dict[str, Any]]:
  """Compares every group with the first, in every number.

  Args:
    values: of the groups.
    primary: the number that decides.
    obstacles: {(group, name): why a number cannot be compared, or ''}.

  Returns:
    A row for each number of each comparison, the primary ones first.
  """
  names = sorted({k for runs in values for v in runs.values() for k in v})
  rows = []
  for name in sorted(names, key=lambda name: (name != primary, name)):
    for i in range(1, len(values)):
      row = _row(name, values[0], values[i])
      if row is not None:
        row |= {'groups': [0, i], 'primary': name == primary}
        row['obstacle'] = (obstacles or {}).get((i, name), '')
        rows.append(row)
  for mine in (True, False):
    tested = [r for r in rows if r['primary'] == mine and _is_tested(r)]
    if tested:
      corrected = seed_tests.holm(np.array([row['p'] for row in tested]))
      for row, p in zip(tested, corrected):
        row |= {'p_corrected': float(p), 'tests': len(tested)}
  for row in rows:
    row['kind'] = _kind(row)
    row['verdict'] = _in_words(row)
    row['seeds_needed'] = _needed(row)
  return rows


def is_shown(row: Mapping[str, Any]) -> bool:
  """Returns whether a row is in the tables for people.

  What is the same is not, nor what is of one noise level.
  """
  return '/logsnr_' not in row['number'] and row['kind'] != SAME


def notes(
  records: Sequence[run_record.Record], found: Sequence[groups.Group]
) -> list[str]:
  """Returns sentences that a reader of the comparison has to know."""
  lines = []
  for key, values in groups.neutral_differences(records).items():
    if key in ('data.root', 'data.source'):
      continue
    lines.append(f'{key} differs without effect: {", ".join(values)}.')
  for record in records:
    if not record.is_finished:
      lines.append(
        f'{record.workdir} is at step {record.step:,} of {record.steps:,}.'
      )
    lines += [f'{record.workdir}: {problem}' for problem in record.problems]
  for key, title in (
    ('devices', 'hardware, so times are not comparable'),
    ('code', 'versions of the code'),
  ):
    seen = {str(s[key]) for r in records for s in r.starts if s.get(key)}
    if len(seen) > 1:
      lines.append(f'Runs are of several {title}: {", ".join(sorted(seen))}.')
  for group in found:
    if len(set(group.seeds)) < len(group.seeds):
      lines.append(f'{group.name} has a seed twice: its runs count as one.')
  shared = {r.autoencoder for r in records if r.autoencoder}
  if len(shared) == 1 and len(records) > 1:
    lines.append(
      'All runs work in one autoencoder: its own variation between seeds is '
      'not in the intervals.'
    )
  return lines


def _check_primary(primary, found, values) -> set[str]:
  """Returns the names of all numbers.

  Raises:
    UsageError: the baseline has no primary number, or no other group has.
  """
  known = {name for runs in values for v in runs.values() for name in v}
  without = _without(primary, found, values)
  silent = [
    str(record.workdir)
    for group in found
    for record in group.records
    if not record.rows
  ]
  if primary not in known:
    raise errors.UsageError(
      f'--primary={primary} is not a number of these runs'
      f'{suggest.hint(primary, sorted(known))} compare.json lists all of a '
      'comparison; those of final/ exist once runs are finished.'
      # Those of the log are at budgets that all runs have reached.
      + (f' Nothing is logged yet in {", ".join(silent)}.' if silent else '')
    )
  first, *others = (any(primary in v for v in runs.values()) for runs in values)
  if not (first and any(others)):
    raise errors.UsageError(
      f'{primary} compares nothing: it is missing or not finite in '
      f'{", ".join(without)}. Wait until these runs have it, or name another '
      '--primary.'
    )
  return known


def _without(primary, found, values) -> list[str]:
  """Returns the folders of the runs that have no primary number."""
  return [
    str(record.workdir)
    for group, runs in zip(found, values)
    for record in group.records
    if primary not in runs[record.config.seed]
  ]


def _not_finite(found, measured) -> Iterator[str]:
  """Yields a sentence for each seed of whose numbers some are left out."""
  for group, runs in zip(found, measured):
    for seed, values in sorted(runs.items()):
      # One name for all budgets and noise levels.
      names = {
        name.partition('@')[0].partition('/logsnr_')[0]
        for name, value in values.items()
        if not np.isfinite(value)
      }
      if names:
        yield (
          f'{group.name}, seed {seed}: {", ".join(sorted(names))} '
          f'{"is" if len(names) == 1 else "are"} not finite, and left out.'
        )


def _row(name: str, first: Values, second: Values) -> dict[str, Any] | None:
  """Returns what is known of one number in two groups; None if it is in one."""
  x, y = (
    {seed: v[name] for seed, v in sorted(g.items()) if name in v}
    for g in (first, second)
  )
  if not x or not y:
    return None
  a, b = np.array(list(x.values())), np.array(list(y.values()))
  row = {
    'number': name,
    'direction': run_numbers.direction(name),
    'exact': name in run_numbers.EXACT,
    'n': [len(a), len(b)],
    'values': [[float(v) for v in a], [float(v) for v in b]],
    'test': None,
    'difference': float(b.mean() - a.mean()),
    'varies': bool(np.ptp([*a, *b])),
  }
  row['mean'], row['half_width'] = [], []
  for found in (a, b):
    mean, half = seed_tests.interval(found)
    row['mean'].append(float(mean))
    row['half_width'].append(_finite(half))
  if min(row['n']) < 2 or row['exact']:
    return row
  pairs = list(x) == list(y)
  result = (seed_tests.paired if pairs else seed_tests.welch)(a, b)
  row |= {
    'test': 'paired' if pairs else 'welch',
    'p': float(result.p),
    'low': float(result.low),
    'high': float(result.high),
    'effect': _finite(result.effect),
  }
  return row


def _is_tested(row) -> bool:
  """Returns whether a row counts as a test.

  One whose values are all equal, over both groups, could not have had another
  result, whichever way they are divided (Tarone, 1990).
  """
  return row['test'] is not None and not row['obstacle'] and row['varies']


def _kind(row) -> str:
  if row['obstacle']:
    return INCOMPARABLE
  if not row['varies']:
    return SAME
  found = row['test'] is not None and row['p_corrected'] < seed_tests.LEVEL
  if not (found or row['exact']):
    return UNKNOWN
  return _side(row) if row['direction'] else DIFFERS


def _in_words(row) -> str:
  if row['kind'] == INCOMPARABLE:
    return f'not comparable: {row["obstacle"]}'
  if row['kind'] == UNKNOWN:
    n = min(row['n'])
    return f'{n} seed{"s" if n != 1 else ""} cannot tell'
  return row['kind']


def _side(row) -> str:
  return BETTER if row['difference'] * row['direction'] > 0 else WORSE


def _needed(row) -> int | None:
  """Returns the seeds that would find a difference of the size seen."""
  if not _is_tested(row) or row['kind'] != UNKNOWN or row['effect'] is None:
    return None
  level = seed_tests.LEVEL / row['tests']
  return seed_tests.seeds_needed(
    row['effect'], level, pairs=row['test'] == 'paired'
  )


def _finite(value) -> float | None:
  return float(value) if np.isfinite(value) else None
