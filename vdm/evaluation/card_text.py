"""Formats a metrics card as text; see `metrics_card.py`."""

import json
from typing import Any

from vdm.common import tables
from vdm.metrics import laws
from vdm.metrics import motion
from vdm.metrics import synthetic_truth


def text(card: dict[str, Any]) -> str:
  """Returns a card as tables and lines of text."""
  parts = [
    'Energy distance from the real clips, % (0: same distribution)\n'
    + _energy_table(card['energy']),
    'Motion and consistency: Wasserstein distance from the real distribution,\n'
    'in the unit given, and AUC of the measure as a classifier (50 %: chance)\n'
    + _panel_table(card['panel']),
  ]
  for name in card:
    if name.startswith('fvd'):
      parts.append(
        f'{name}: Frechet distance, its limit for infinite sets, and the '
        f'kernel distance\n{_features_table(card[name])}'
      )
  if 'inception' in card:
    scores = ', '.join(
      f'{name} {row["score"]:.2f} +- {row["spread"]:.2f}'
      for name, row in card['inception'].items()
    )
    parts.append(f'Inception Score: {scores}')
  if 'laws' in card:
    parts.append(
      'Compared with the laws of the scenes\n' + laws.table(card['laws'])
    )
  if 'synthetic_truth' in card:
    parts.append(
      'One straight mover\n' + synthetic_truth.table(card['synthetic_truth'])
    )
  if 'reconstruction' in card:
    parts.append('Autoencoder: ' + _line(card['reconstruction']))
  if 'memorisation' in card:
    parts.append(
      'Nearest training clips, grey levels: ' + _line(card['memorisation'])
    )
  counts = ', '.join(f'{n} {name}' for name, n in card['counts'].items())
  parts.append(f'Clips: {counts}.\n{json.dumps(card["protocol"], indent=1)}')
  return '\n\n'.join(parts) + '\n'


def _energy_table(rows) -> str:
  sets = [name for name in next(iter(rows.values())) if name != 'chance']
  lines = [['', 'samples', '95 %', 'real', 'by chance']]
  others = [name for name in sets if name not in ('samples', 'real')]
  lines[0] += others
  for key, row in rows.items():
    sample = row['samples']
    lines.append(
      [
        key,
        _percent(sample['energy']),
        f'{_percent(sample["low"])} to {_percent(sample["high"])}',
        _percent(row['real']['energy']),
        _percent(row['chance']),
        *(_percent(row[name]['energy']) for name in others),
      ]
    )
  return tables.lay_out(lines)


def _panel_table(panel) -> str:
  others = [
    name for name in panel if name not in ('reference', 'samples', 'real')
  ]
  lines = [
    [
      '',
      'real, median (10 to 90 %)',
      'samples, median',
      'samples',
      'real',
      *others,
      'AUC, %',
      'real',
    ]
  ]
  for key, (title, unit) in motion.PANEL.items():
    spread, sample = panel['reference'][key], panel['samples'][key]
    low, high = tables.number(spread['low']), tables.number(spread['high'])
    lines.append(
      [
        f'{title}, {unit}' if unit else title,
        f'{tables.number(spread["median"])} ({low} to {high})',
        tables.number(sample['median']),
        tables.number(sample['distance']),
        tables.number(panel['real'][key]['distance']),
        *(tables.number(panel[name][key]['distance']) for name in others),
        f'{100 * sample["separation"]:.0f}',
        f'{100 * panel["real"][key]["separation"]:.0f}',
      ]
    )
  return tables.lay_out(lines)


def _features_table(rows) -> str:
  lines = [['', 'Frechet', '95 %', 'limit', 'kernel', '95 %']]
  for name, row in rows.items():
    cells = [name, tables.number(row['frechet']), _interval(row, 'frechet')]
    cells.append(tables.number(row['infinity']) if 'infinity' in row else '-')
    cells += [f'{row["kernel"]:.4g}', _interval(row, 'kernel')]
    lines.append(cells)
  return tables.lay_out(lines)


def _interval(row, key) -> str:
  if f'{key}_interval' not in row:
    return '-'
  low, high = row[f'{key}_interval']
  return f'{low:.4g} to {high:.4g}'


def _percent(share: float) -> str:
  return f'{100 * share:.2f}'


def _line(values: dict[str, float]) -> str:
  return ', '.join(
    f'{name.replace("_", " ")} {tables.number(value)}'
    for name, value in values.items()
  )
