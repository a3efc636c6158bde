"""`report.html`: one page of a run, while it trains or after."""

from collections.abc import Iterator
import json

from vdm.common import files
from vdm.common import sizes
from vdm.common import tables
from vdm.config import schema
from vdm.config import serialize
from vdm.evaluation import card_text
from vdm.evaluation import diagnosis_text
from vdm.evaluation import final_tables
from vdm.media import chart_script
from vdm.media import charts
from vdm.media import loops
from vdm.media import page
from vdm.preparation import facts
from vdm.reporting import curves
from vdm.reporting import pictures
from vdm.reporting import run_record
from vdm.training import stages
from vdm.training import throughput

NAME = 'report.html'
_STARTS = 20  # Shown, the latest ones.


def write(record: run_record.Record) -> int:
  """Writes the page into the run's folder and returns its bytes."""
  data = make(record).encode()
  files.write_bytes(record.workdir / NAME, data)
  return len(data)


def make(record: run_record.Record) -> str:
  """Returns the page of a run."""
  sections = [
    ('', _summary),
    ('Curves', _curves),
    ('The same seeds over the steps', _previews),
    ('Real clips, reconstructions and samples', _beside),
    ('Final numbers', _final),
    ('Metrics card', _card),
    ('Diagnosis', _diagnosis),
    ('Autoencoder', _autoencoder),
    ('Data', _data),
    ('Configuration', _configuration),
    ('Starts, versions and hardware', _starts),
  ]
  parts = []
  for title, section in sections:
    parts += [page.heading(title)] if title else []
    parts += section(record)
  if record.problems:
    parts.append(page.heading('What could not be read'))
    parts += map(page.paragraph, record.problems)
  return page.page(
    f'Run: {record.workdir}',
    parts,
    style=charts.STYLE + loops.STYLE,
    script=chart_script.SCRIPT,
  )


def _summary(record) -> Iterator[str]:
  state = f'at step {record.step:,} of {record.steps:,}'
  if record.is_finished:
    state = f'finished, {record.steps:,} steps'
  spans = stages.spans(record.config)
  rows = [('state', state)]
  if record.rows:
    rows.append(('stage', record.rows[-1]['stage']))
    rows += [
      (
        'time of training steps',
        throughput.clock(float(record.totals['train_seconds'][-1])),
      ),
      ('TFLOP of training steps', f'{record.totals["train_tflop"][-1]:.4g}'),
      ('clips trained on', f'{record.totals["train_clips"][-1]:,.0f}'),
    ]
  resumes = sum('resumed_from' in row for row in record.rows)
  rows.append(('resumed', f'{resumes} times'))
  yield page.table(rows)
  head = ('stage', 'objective', 'steps', 'frames', 'px', 'batch')
  yield page.table(
    [
      (
        span.name,
        span.stage.objective,
        span.stage.steps,
        span.stage.frames,
        sizes.text(sizes.of(span.stage)),
        span.stage.batch,
      )
      for span in spans
    ],
    head,
  )


def _curves(record) -> Iterator[str]:
  found = curves.charts_of(record)
  if not found:
    yield page.paragraph('The run has logged nothing yet.')
    return
  yield charts.axis_choice(curves.AXES)
  yield charts.grid(found)
  yield page.paragraph(
    f'Of a long series, {charts.BINS} parts of equal length keep their '
    'smallest and their largest value, so that no spike is lost. Point at a '
    'chart for values, click a name to hide its line; a cross marks what is '
    'not finite.'
  )


def _previews(record) -> Iterator[str]:
  found = pictures.previews(record)
  if not found:
    yield page.paragraph('There is no preview yet.')
  for name, shown, count in found:
    yield page.heading(f'Stage {name}', 3)
    if len(shown) < count:
      yield page.paragraph(
        f'{len(shown)} of {count} previews; all are in samples/.'
      )
    yield loops.slider(shown)


def _beside(record) -> Iterator[str]:
  picture = pictures.beside_real(record)
  if picture is not None:
    yield page.picture(
      picture,
      'Held-out clips, the same through the autoencoder, and the first final '
      'samples, not selected, of the same labels where there are labels.',
      wide=True,
    )
    return
  made = pictures.final_samples(record)
  if made is None:
    yield page.paragraph('There are no final videos yet.')
    return
  videos, _, seeds, rate = made
  names = [[f'seed {seed}' for seed in seeds]]
  yield page.picture(
    pictures.grid([videos], names, rate),
    'The first final samples. This run stored no real clips beside them; the '
    'last preview has both.',
    wide=True,
  )


def _final(record) -> Iterator[str]:
  content = record.numbers.get(run_record.FINAL)
  if content is None:
    yield page.paragraph('There is no final/metrics.json yet.')
    return
  found = list(final_tables.of(content))
  for title, table in found:
    yield page.heading(title, 3)
    yield page.preformatted(table)
  if not found:
    yield page.paragraph(
      'The run measures its final videos only where their truth is known; '
      'python -m vdm.evaluate run makes a metrics card of any.'
    )
  yield page.folded(
    'Protocol',
    [page.preformatted(json.dumps(content.get('protocol'), indent=1))],
  )


def _card(record) -> Iterator[str]:
  card = record.numbers.get(run_record.CARD)
  if card is None:
    yield page.paragraph(
      'There is none: python -m vdm.evaluate run makes evaluation/run/.'
    )
    return
  yield page.preformatted(card_text.text(card))
  yield page.folded(
    'Protocol', [page.preformatted(json.dumps(card.get('protocol'), indent=1))]
  )


def _diagnosis(record) -> Iterator[str]:
  found = record.numbers.get(run_record.DIAGNOSIS)
  if found is None:
    yield page.paragraph(
      'There is none: python -m vdm.diagnose tells what ails a run.'
    )
    return
  yield page.paragraph(f'Of step {found["step"]:,}:')
  yield page.preformatted(diagnosis_text.lay_out(found))
  picture = record.workdir / 'diagnosis.png'
  if picture.exists():
    yield page.folded(
      'Single steps of denoising',
      [
        page.picture(
          picture.read_bytes(),
          'The middle frames of held-out clips; below each noise level, what '
          'the network makes of it in one step.',
        )
      ],
    )


def _autoencoder(record) -> Iterator[str]:
  report = record.numbers.get(run_record.AUTOENCODER)
  if report is None:
    yield page.paragraph(
      'There is no autoencoder/report.json: the autoencoder is not trained '
      'yet, or the run took another one.'
    )
    return
  measures = sorted({k for values in report['mean'].values() for k in values})
  yield page.table(
    [
      (name, *(_number(values.get(k)) for k in measures))
      for name, values in report['mean'].items()
    ],
    ('mean over held-out clips', *measures),
  )


def _data(record) -> Iterator[str]:
  trained_on = next(
    (start['dataset'] for start in record.starts if start.get('dataset')), ''
  )
  final = record.numbers.get(run_record.FINAL, {}).get('protocol', {})
  trained_on = trained_on or final.get('dataset_fingerprint', '')
  found, problem = facts.describe(record.config.data, trained_on)
  splits = found.pop('splits', {})
  yield page.table(list(found.items()))
  if splits:
    yield page.table(
      [(name, s['shots'], s['frames']) for name, s in splits.items()],
      ('split', 'shots', 'frames'),
    )
  if problem:
    yield page.paragraph(problem)


def _configuration(record) -> Iterator[str]:
  command = next(
    (s['command'] for s in reversed(record.starts) if s.get('command')), None
  )
  if command:
    yield page.paragraph('Last started with these arguments of vdm.main:')
    yield page.preformatted(' '.join(map(str, command)))
  values = serialize.flatten(record.config)
  defaults = {
    name: key.default for name, key in schema.keys(record.config.stages).items()
  }
  changed = [
    (name, str(value), str(defaults.get(name, 'no such key')))
    for name, value in values.items()
    if value != defaults.get(name)
  ]
  yield page.paragraph(
    f'{len(changed)} of {len(values)} keys differ from the defaults of '
    'vdm/config/schema.py:'
  )
  yield page.table(changed, ('key', 'value', 'default'))
  yield page.folded(
    'All keys', [page.table([(k, str(v)) for k, v in values.items()])]
  )


def _starts(record) -> Iterator[str]:
  if not record.starts:
    yield page.paragraph(
      'The run is of an earlier version, which recorded none of it.'
    )
    resumed = [row['step'] for row in record.rows if 'resumed_from' in row]
    if resumed:
      yield page.paragraph(f'Resumed from steps {resumed}.')
    return
  keys = ('time', 'step', 'devices', 'processes', 'code', 'python')
  shown = record.starts[-_STARTS:]
  if len(shown) < len(record.starts):
    yield page.paragraph(
      f'The last {len(shown)} of {len(record.starts)} starts.'
    )
  yield page.table(
    [(*(start.get(k, '') for k in keys), _versions(start)) for start in shown],
    (*keys, 'versions'),
  )


def _versions(start) -> str:
  found = start.get('versions')
  if not isinstance(found, dict):
    return ''
  return ', '.join(f'{name} {version}' for name, version in found.items())


def _number(value: float | None) -> str:
  return '-' if value is None else tables.number(value)
