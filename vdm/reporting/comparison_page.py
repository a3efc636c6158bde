"""`compare.html`: verdicts, curves and the same seeds beside each other."""

from collections.abc import Iterator, Sequence
from typing import Any

from vdm.media import chart_script
from vdm.media import charts
from vdm.media import loops
from vdm.media import page
from vdm.reporting import comparison
from vdm.reporting import comparison_text
from vdm.reporting import curves
from vdm.reporting import groups
from vdm.reporting import pictures
from vdm.reporting import run_record

_CURVES = ('val_loss', 'loss', 'small_score/motion', 'val_psnr')
_LINES = 40  # Of a chart, at most.
_SEEDS = 8  # Of which videos are shown, at most.
_GROUPS = 12  # Rows of a picture, at most.
_COLUMNS = 6
_ARROWS = {1: '\u2191', -1: '\u2193', 0: ''}
_STYLE = """
svg.forest { width: 9rem; height: 1.1rem; overflow: visible }
table.verdicts { font-size: .85rem }
table.verdicts td { white-space: nowrap; font-variant-numeric: tabular-nums }
td.better { color: #2f8f5b; font-weight: 600 }
td.worse { color: #c0503f; font-weight: 600 }
td.differs { font-weight: 600 }
"""


def make(content: dict[str, Any], records: Sequence[run_record.Record]) -> str:
  """Returns the page of a comparison.

  Args:
    content: see `comparison.make`.
    records: the runs.
  """
  found = groups.make(records)
  rows = content['numbers']
  others = [row for row in rows if not row['primary']]
  parts = [
    page.heading('What differs'),
    *_groups(content),
    *map(page.paragraph, content['notes']),
    page.heading('The primary number'),
    page.paragraph(
      'Named before any number was looked at. Means over seeds, with intervals '
      'of 95 %.'
    ),
    _table([row for row in rows if row['primary']], content),
    page.heading('Curves'),
    charts.axis_choice(curves.AXES),
    charts.grid(list(_charts(found))),
    page.heading('The same seeds of the sampler'),
    *_videos(found),
    page.heading('All other numbers'),
    page.paragraph(
      'Corrected together for their number (Holm): a verdict other than '
      '"cannot tell" anywhere below comes by chance in at most 1 of 20 '
      'comparisons of equal configurations. The mark is the difference in '
      'units of the interval of one number; its line is the interval, not '
      'corrected. An arrow says which way is better, where that is known.'
    ),
    _table([row for row in others if comparison.is_shown(row)], content),
    page.folded(
      'By noise level, and what is the same',
      [
        _table([row for row in others if not comparison.is_shown(row)], content)
      ],
    ),
  ]
  return page.page(
    f'Comparison of {len(found)} configurations, {len(records)} runs',
    parts,
    style=charts.STYLE + loops.STYLE + _STYLE,
    script=chart_script.SCRIPT,
  )


def _groups(content) -> Iterator[str]:
  keys = list(content['groups'][0]['differs'])
  yield page.table(
    [
      (
        group['name'],
        *(group['differs'][key] for key in keys),
        ', '.join(map(str, group['seeds'])),
        ', '.join(group['runs']),
      )
      for group in content['groups']
    ],
    ('', *keys, 'seeds', 'runs'),
  )


def _table(rows, content) -> str:
  """Returns a table of verdicts, a line of HTML for each row."""
  lines = []
  for row in rows:
    first, second = (content['groups'][i]['name'] for i in row['groups'])
    p = row.get('p_corrected')
    cells = (
      comparison_text.cell(row, 0).replace('+-', '\u00b1'),
      comparison_text.cell(row, 1).replace('+-', '\u00b1'),
      comparison_text.difference(row),
    )
    lines.append(
      f'<tr><td>{page.text(row["number"])}</td>'
      f'<td>{_ARROWS[row["direction"]]}</td><td>{second} - {first}</td>'
      f'<td class="{row["kind"]}">{page.text(row["verdict"])}</td>'
      + ''.join(f'<td>{page.text(cell)}</td>' for cell in cells)
      + f'<td>{_forest(row)}</td><td>{"-" if p is None else f"{p:.2g}"}</td>'
      f'<td>{comparison_text.needed(row)}</td></tr>'
    )
  head = ('number', '', '', 'verdict', 'baseline', 'other', 'difference', '')
  head += ('p', 'seeds needed')
  names = ''.join(f'<th>{name}</th>' for name in head)
  return (
    '<div class="scroll"><table class="verdicts">'
    f'<tr>{names}</tr>{"".join(lines)}</table></div>'
  )


def _forest(row) -> str:
  """Returns a picture of a difference and its interval around zero."""
  if row['test'] is None or not row['high'] > row['low']:
    return ''
  size = 1.15 * max(abs(row['low']), abs(row['high']))

  def place(value):
    return f'{50 + 48 * value / size:.1f}%'

  return (
    '<svg class="forest" role="img"><line x1="50%" x2="50%" y1="0" y2="100%" '
    'stroke="currentColor" stroke-opacity=".4"/>'
    f'<line x1="{place(row["low"])}" x2="{place(row["high"])}" y1="50%" '
    'y2="50%" stroke="var(--one)" stroke-width="2"/>'
    f'<circle cx="{place(row["difference"])}" cy="50%" r="4" '
    'fill="var(--one)"/></svg>'
  )


def _charts(found) -> Iterator[str]:
  """Yields a chart of each known curve: a colour a group, a line a run."""
  count = sum(len(group.records) for group in found)
  for name in _CURVES:
    lines = []
    for colour, group in enumerate(found):
      for record in group.records:
        title = f'{group.name}, seed {record.config.seed}'
        line = curves.series_of(record, name, title, colour=colour)
        if len(line.y):
          lines.append(line)
    if lines:
      yield charts.chart(
        name if count <= _LINES else f'{name}, {_LINES} of {count} runs',
        lines[:_LINES],
        logarithmic='loss' in name,
        bins=max(30, charts.BINS // len(found)),
      )


def _videos(found) -> Iterator[str]:
  """Yields a picture for each seed that runs of all groups have."""
  common = set.intersection(*(set(group.seeds) for group in found))
  seeds = sorted(common) or [None]
  shown = []
  for seed in seeds[:_SEEDS]:
    picture = _of_seed(found[:_GROUPS], seed)
    if picture is not None:
      title = 'first runs' if seed is None else f'runs of seed {seed}'
      shown.append((title, picture))
  if not shown:
    yield page.paragraph('The runs have no final videos of one size yet.')
    return
  yield page.paragraph(
    'Final samples, not selected: a row for each configuration, a column for '
    'each seed of the sampler.'
  )
  yield loops.slider(shown[::-1])


def _of_seed(found, seed) -> bytes | None:
  rows, captions, rate = [], [], None
  for group in found:
    record = next(
      (r for r in group.records if seed in (None, r.config.seed)), None
    )
    made = record and pictures.final_samples(record, _COLUMNS)
    if not made:
      return None
    videos, _, seeds, rate = made
    rows.append(videos)
    captions.append([f'{group.name}, seed {k}' for k in seeds])
  if len({videos.shape for videos in rows}) > 1:
    return None
  return pictures.grid(rows, captions, rate)
