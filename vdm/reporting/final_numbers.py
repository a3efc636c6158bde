"""The part of `report.html` that shows what is measured on the final videos."""

from collections.abc import Iterator
import json

from vdm.common import tables
from vdm.evaluation import caption_score
from vdm.evaluation import given_score
from vdm.media import page
from vdm.metrics import enlargement
from vdm.metrics import laws
from vdm.metrics import synthetic_truth
from vdm.reporting import run_record


def section(record: run_record.Record) -> Iterator[str]:
  """Yields the tables of `final/metrics.json`."""
  content = record.numbers.get(run_record.FINAL)
  if content is None:
    yield page.paragraph('There is no final/metrics.json yet.')
    return
  shown = False
  for key, metric in (
    ('synthetic_truth', synthetic_truth),
    ('laws', laws),
    ('captions', caption_score),
  ):
    if key in content:
      yield page.preformatted(metric.table(content[key]))
      shown = True
  for title, table in _known_truth(content):
    yield page.heading(title, 3)
    yield page.preformatted(table)
    shown = True
  if 'fixed_clips_psnr' in content:
    yield page.table(
      [(k, round(v, 2)) for k, v in content['fixed_clips_psnr'].items()],
      ('PSNR to the clips that were trained on, dB', ''),
    )
    shown = True
  if not shown:
    yield page.paragraph(
      'The run measures its final videos only where their truth is known; '
      'python -m vdm.evaluate run makes a metrics card of any.'
    )
  yield page.folded(
    'Protocol',
    [page.preformatted(json.dumps(content.get('protocol'), indent=1))],
  )


def _known_truth(content) -> Iterator[tuple[str, str]]:
  """Yields titles and tables of videos that are compared with one clip each."""
  for task, row in content.get('given', {}).items():
    title = f'{task.replace("_", " ").capitalize()} of {row["clips"]} clips'
    yield title, tables.by_set(row['sets'], given_score.TITLES)
    if 'laws' in row:
      yield f'{title}: the laws of the scenes', laws.table(row['laws'])
  if row := content.get('enlargement'):
    title = f'Enlargement of {row["clips"]} clips'
    yield title, tables.by_set(row['sets'], enlargement.TITLES)
