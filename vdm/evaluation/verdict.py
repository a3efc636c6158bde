"""Says in a few sentences what a metrics card shows, by plain rules.

- Enough: a distance is a result if both sets have `LEAST_CLIPS` or more. When
  true synthetic scenes are divided at random, the energy distance that 5 % of
  the divisions exceed is 8 to 25 % for 4 against 4 clips, 4 to 8 % for 16 and
  about 1 % for 64; it depends on the summary.
- As real: chance gives an energy distance as large. The estimate has no bias:
  between equal distributions it is negative half of the time.
- Closest: the set with the smallest energy distance from the samples, in the
  mean over `suite.SUMMARY`.
- Worst: the summary with the largest energy distance from the real clips beyond
  that of the floor, and beyond that of the autoencoder, of those that are
  neither as real nor below the floor.
- Copied: the samples that are nearer to a training clip than the nearest 1 % of
  held-out clips are more than chance gives, by three standard deviations, and
  the nearest is at less than half of the held-out clips' median distance.
  Without this, blurred samples would count, which are nearer to every clip.
"""

import math
from typing import Any

import numpy as np

LEAST_CLIPS = 16
_SETS = {
  'real': 'other real clips',
  'autoencoder': 'reconstructions of the autoencoder',
  'shuffled': 'real clips with shuffled frames',
  'frozen': 'frozen clips',
  'mixed': 'clips mixed from frames of several',
}


def enough(card: dict[str, Any], name: str) -> bool:
  """Returns whether a set and what it is compared with have enough clips."""
  counts = card['counts']
  compared = counts['reference'], counts[name]
  if name == 'real' and 'floor' in counts:
    compared = counts['floor']
  return min(compared) >= LEAST_CLIPS


def as_real(row: dict[str, Any], name: str) -> bool:
  """Returns whether chance gives an energy distance as large as a set's."""
  return row[name]['energy'] <= max(row['chance'], 0.0)


def text(card: dict[str, Any]) -> str:
  """Returns the verdict on a card's samples, a sentence per line."""
  if not (enough(card, 'samples') and enough(card, 'real')):
    return f'Too few clips for a verdict: it takes {LEAST_CLIPS} of each set.'
  return '\n'.join([_closest(card), _worst(card), _memorised(card)])


def _closest(card) -> str:
  means = {
    name: max(0.0, float(np.mean(list(energies.values()))))
    for name, energies in card['from_samples'].items()
  }
  first, second = sorted(means, key=means.get)[:2]
  return (
    f'The samples are closest to {_SETS[first]} ({_percent(means[first])} '
    f'away), then to {_SETS[second]} ({_percent(means[second])}).'
  )


def _worst(card) -> str:
  rows = card['energy']

  def beyond(name, other):
    return rows[name]['samples']['energy'] - rows[name][other]['energy']

  seen = [
    name
    for name, row in rows.items()
    if beyond(name, 'real') > 0 and not as_real(row, 'samples')
  ]
  if not seen:
    return 'No measure tells them from real clips.'

  worst = max(seen, key=lambda name: beyond(name, 'real'))
  energy = rows[worst]['samples']['energy']
  line = f'Worst against real clips: {worst}, {_percent(energy)} away'
  if 'autoencoder' not in rows[worst]:
    return f'{line}.'
  worst = max(seen, key=lambda name: beyond(name, 'autoencoder'))
  if beyond(worst, 'autoencoder') <= max(rows[worst]['chance'], 0.0):
    return f'{line}; no measure is worse than the autoencoder alone.'
  return (
    f'{line}; against the autoencoder: {worst}, '
    f'{_percent(rows[worst]["samples"]["energy"])} where its reconstructions '
    f'are {_percent(max(0.0, rows[worst]["autoencoder"]["energy"]))} away.'
  )


def _memorised(card) -> str:
  if 'memorisation' not in card:
    return 'Whether training clips are copied was not measured.'
  counts, values = card['counts'], card['memorisation']
  # The nearest 1 % of few held-out clips is their nearest one.
  chance = max(0.01, 1 / (counts['reference'] + 1))
  expected = chance * counts['samples']
  found = round(values['copies'] * counts['samples'])
  many = found > expected + 3 * math.sqrt(expected)
  copied = many and values['least'] < values['held_out_median'] / 2
  start = 'Training clips may be copied' if copied else 'Nothing looks copied'
  return (
    f'{start}: {found} of {counts["samples"]} samples are nearer to a training '
    f'clip than held-out clips are ({expected:.1f} by chance), the nearest at '
    f'{values["least"]:.1f} grey levels (held-out median '
    f'{values["held_out_median"]:.1f}).'
  )


def _percent(share: float) -> str:
  return f'{100 * share:.1f} %'
