"""Tables of what is measured on a run's final videos, for reports and cards."""

from collections.abc import Iterator, Mapping
from typing import Any

from vdm.common import tables
from vdm.evaluation import caption_score
from vdm.evaluation import given_score
from vdm.metrics import enlargement
from vdm.metrics import laws
from vdm.metrics import synthetic_truth


def of(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields (title, table as text) of each measurement there is.

  Args:
    content: of `final/metrics.json`.
  """
  for key, title, metric in (
    ('synthetic_truth', 'The truth of the scenes', synthetic_truth),
    ('laws', 'The laws of the scenes', laws),
    ('captions', 'What captions ask for', caption_score),
  ):
    if key in content:
      yield title, metric.table(content[key])
  for task, row in content.get('given', {}).items():
    title = f'{task.replace("_", " ").capitalize()} of {row["clips"]} clips'
    yield title, tables.by_set(row['sets'], given_score.TITLES)
    if 'laws' in row:
      yield f'{title}: the laws of the scenes', laws.table(row['laws'])
  if row := content.get('enlargement'):
    title = f'Enlargement of {row["clips"]} clips'
    yield title, tables.by_set(row['sets'], enlargement.TITLES)
  if psnr := content.get('fixed_clips_psnr'):
    rows = [('', 'PSNR, dB'), *((k, f'{v:.2f}') for k, v in psnr.items())]
    yield 'The clips that were trained on', tables.lay_out(rows)
