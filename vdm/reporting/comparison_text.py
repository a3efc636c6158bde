"""A comparison as text for the terminal."""

from typing import Any

from vdm.common import tables
from vdm.metrics import seed_tests
from vdm.reporting import comparison


def text(content: dict[str, Any]) -> str:
  """Returns what `comparison.make` returned as text."""
  primary = [row for row in content['numbers'] if row['primary']]
  others = [
    row
    for row in content['numbers']
    if not row['primary'] and comparison.is_shown(row)
  ]
  left = len(content['numbers']) - len(primary) - len(others)
  parts = [_groups(content)]
  parts += ['\n'.join(content['notes'])] if content['notes'] else []
  parts.append(
    'The primary number, means over seeds with intervals of '
    f'{1 - seed_tests.LEVEL:.0%}\n{_table(primary, content)}'
  )
  tests = max((row.get('tests', 0) for row in others), default=0)
  parts.append(
    f'All others, corrected for the number of tests, {tests} (Holm)\n'
    + _table(others, content)
  )
  budgets = content['budgets']
  parts.append(
    f'Of logs: @steps at step {budgets["steps"]:,.0f}, @seconds after '
    f'{budgets["seconds"]:,.0f} s, @tflop after {budgets["tflop"]:.4g} TFLOP, '
    'all over the whole run.'
    + (
      f' compare.json has {left} more, by noise level or all the same.'
      if left
      else ''
    )
  )
  return '\n\n'.join(parts) + '\n'


def number(value: float | None, digits: int = 4) -> str:
  """Returns a number in some significant digits."""
  return '-' if value is None else f'{value:.{digits}g}'


def cell(row: dict[str, Any], side: int) -> str:
  """Returns a group's mean with its interval."""
  half = row['half_width'][side]
  shown = number(row['mean'][side])
  return shown if half is None else f'{shown} +- {number(half, 2)}'


def difference(row: dict[str, Any]) -> str:
  """Returns the difference of two groups with its interval."""
  shown = f'{row["difference"]:+.3g}'
  if row['test'] is None:
    return shown
  return f'{shown} ({number(row["low"], 3)} to {number(row["high"], 3)})'


def needed(row: dict[str, Any]) -> str:
  """Returns the seeds that would be needed, in words."""
  if row['seeds_needed'] is not None:
    return str(row['seeds_needed'])
  unknown = row['kind'] == comparison.UNKNOWN and row.get('effect')
  return f'> {seed_tests.MOST}' if unknown else ''


def _groups(content) -> str:
  keys = list(content['groups'][0]['differs'])
  rows = [['', *keys, 'runs', 'seeds']]
  for group in content['groups']:
    seeds = ' '.join(map(str, group['seeds']))
    values = [group['differs'][key] for key in keys]
    rows.append([group['name'], *values, str(len(group['runs'])), seeds])
  return 'What differs\n' + tables.lay_out(rows)


def _table(rows, content) -> str:
  lines = [
    ['', '', 'baseline', 'other', 'difference', 'p', 'verdict', 'seeds needed']
  ]
  for row in rows:
    first, second = (content['groups'][i]['name'] for i in row['groups'])
    p = row.get('p_corrected')
    lines.append(
      [
        row['number'],
        f'{second} - {first}',
        cell(row, 0),
        cell(row, 1),
        difference(row),
        '-' if p is None else f'{p:.2g}',
        row['verdict'],
        needed(row),
      ]
    )
  return tables.lay_out(lines)
