"""Formats a metrics card as text, the verdict first; see `metrics_card.py`."""

from collections.abc import Iterable
from typing import Any

from vdm.common import tables
from vdm.evaluation import caption_score
from vdm.evaluation import verdict
from vdm.metrics import enlargement
from vdm.metrics import laws
from vdm.metrics import motion
from vdm.metrics import synthetic_truth

_AS_REAL, _TOO_FEW = 'as real', 'too few'
_RULES = (
  f'{_AS_REAL}: at most what chance gives when real videos are divided at '
  'random;\n  of kernel distances and limits, at most 0.\n'
  f'{_TOO_FEW}: one of the two sets has fewer than {verdict.LEAST_CLIPS} clips.'
)


def text(card: dict[str, Any]) -> str:
  """Returns a card as a verdict, tables and lines of text."""
  parts = [
    verdict.text(card),
    'Energy distance from the real clips, % (0: same distribution)\n'
    + _energy_table(card),
    'Motion and consistency: Wasserstein distance from the real distribution,\n'
    'in the unit given, and AUC of the measure as a classifier (50 %: chance)\n'
    + _panel_table(card),
  ]
  for name in card:
    if name.startswith('fvd'):
      parts.append(
        f'{name}: Frechet distance, its limit for infinite sets, and the '
        f'kernel distance\n{_features_table(card, name)}'
      )
  if 'inception' in card:
    scores = ', '.join(
      f'{name} {row["score"]:.2f} +- {row["spread"]:.2f}'
      if verdict.enough(card, name)
      else f'{name} {_TOO_FEW}'
      for name, row in card['inception'].items()
    )
    parts.append(f'Inception Score: {scores}')
  if 'laws' in card:
    rows = _sets(card, 'laws', laws.DISTANCES)
    parts.append('Compared with the laws of the scenes\n' + laws.table(rows))
  if 'synthetic_truth' in card:
    rows = _sets(card, 'synthetic_truth', synthetic_truth.RATIOS)
    parts.append('One straight mover\n' + synthetic_truth.table(rows))
  if 'captions' in card:
    parts.append(
      'What captions say and clips show\n'
      + caption_score.table(card['captions'])
    )
  parts.append(_RULES)
  if 'enlargement' in card:
    found = card['enlargement']
    parts.append(
      f'Enlargement of {found["clips"]} held-out clips\n'
      + tables.by_set(found['sets'], enlargement.TITLES)
    )
  if 'reconstruction' in card:
    values = card['reconstruction'].items()
    line = (f'{k.replace("_", " ")} {tables.number(v)}' for k, v in values)
    parts.append('Autoencoder: ' + ', '.join(line))
  if 'memorisation' in card:
    parts.append(_memorisation(card['memorisation']))
  counts = ', '.join(f'{n} {name}' for name, n in card['counts'].items())
  parts.append(f'Clips: {counts}.')
  return '\n\n'.join(parts) + '\n'


def _energy_table(card) -> str:
  sets = [name for name in card['energy']['motion'] if name != 'chance']
  others = [name for name in sets if name not in ('samples', 'real')]
  lines = [['', 'samples', '95 %', 'real', 'chance', *others]]
  for key, row in card['energy'].items():
    cells = {name: _energy(card, row, name) for name in sets}
    interval = '-'
    if cells['samples'] not in (_AS_REAL, _TOO_FEW):
      low, high = row['samples']['low'], row['samples']['high']
      interval = f'{_percent(low)} to {_percent(high)}'
    chance = _if_enough(card, 'real', _percent(row['chance']))
    found = [cells['samples'], interval, cells['real'], chance]
    lines.append([key, *found, *(cells[name] for name in others)])
  return tables.lay_out(lines)


def _energy(card, row, name: str) -> str:
  if verdict.enough(card, name) and verdict.as_real(row, name):
    return _AS_REAL
  return _if_enough(card, name, _percent(row[name]['energy']))


def _panel_table(card) -> str:
  panel = card['panel']
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
      'AUC of samples, %',
      'AUC of real, %',
    ]
  ]
  for key, (title, unit) in motion.PANEL.items():
    spread = panel['reference'][key]
    low, high = tables.number(spread['low']), tables.number(spread['high'])
    lines.append(
      [
        f'{title}, {unit}' if unit else title,
        f'{tables.number(spread["median"])} ({low} to {high})',
        tables.number(panel['samples'][key]['median']),
        *(
          _if_enough(card, k, tables.number(panel[k][key]['distance']))
          for k in ('samples', 'real', *others)
        ),
        *(
          _if_enough(card, k, f'{100 * panel[k][key]["separation"]:.0f}')
          for k in ('samples', 'real')
        ),
      ]
    )
  return tables.lay_out(lines)


def _features_table(card, metric: str) -> str:
  columns = ['Frechet', 'Frechet, 95 %', 'limit', 'kernel', 'kernel, 95 %']
  lines = [['', *columns]]
  for name, row in card[metric].items():
    cells = [tables.number(row['frechet']), _interval(row, 'frechet')]
    cells += [_unbiased(row.get(key)) for key in ('infinity', 'kernel')]
    cells.append(_interval(row, 'kernel'))
    lines.append([name, *(_if_enough(card, name, cell) for cell in cells)])
  return tables.lay_out(lines)


def _unbiased(value: float | None) -> str:
  """Formats an estimate that is negative for half of all equal sets."""
  if value is None:
    return '-'
  return f'{value:.4g}' if value > 0 else _AS_REAL


def _sets(card, key: str, compared: Iterable[str]) -> dict[str, dict]:
  """Returns a part of a card as its table shows it.

  Args:
    card: the numbers.
    key: of the part, {set: {measure: number}}.
    compared: measures that compare distributions, for which clips can be too
      few.
  """
  return {
    name: {
      measure: _if_enough(card, name, value) if measure in compared else value
      for measure, value in values.items()
      if measure != 'clips'  # Told for all tables together.
    }
    for name, values in card[key].items()
  }


def _if_enough(card, name: str, value: Any) -> Any:
  return value if verdict.enough(card, name) else _TOO_FEW


def _percent(share: float) -> str:
  return f'{100 * max(0.0, share):.2f}'


def _interval(row, key) -> str:
  if f'{key}_interval' not in row:
    return '-'
  low, high = (max(0.0, value) for value in row[f'{key}_interval'])
  return f'{low:.4g} to {high:.4g}'


def _memorisation(values: dict[str, float]) -> str:
  distances = ', '.join(
    f'{name} {tables.number(values[name])} (held out '
    f'{tables.number(values[f"held_out_{name}"])})'
    for name in ('median', 'least')
  )
  return (
    f'Nearest of {values["clips"]} training clips, grey levels: {distances}; '
    f'copies {100 * values["copies"]:.1f} % of the samples'
  )
