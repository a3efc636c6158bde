"""A diagnosis for people: the numbers beside healthy ones, and what to do."""

from typing import Any

from vdm.common import tables
from vdm.evaluation import ailments

_TITLES = {
  'error': 'the network',
  'linear': 'the best linear denoiser',
  'identity': 'z itself',
  'no_label': 'without the label',
  'wrong_label': 'with a wrong one',
  'strangers': "among another clip's frames",
  'own_frames': '  its middle frame otherwise',
  'first_frame': 'of the first frame',
  'last_frame': 'of the last frame',
}


def lay_out(result: dict[str, Any]) -> str:
  """Returns the content of diagnosis.json as text."""
  numbers = result['numbers']
  rows = [['', 'this run', 'healthy']]
  for line in ailments.LINES:
    if (value := numbers.get(line.key)) is not None:
      rows.append([line.title, tables.number(value), line.healthy])
  steps = [
    ['error of one step, log-SNR', *numbers['levels']],
    *(
      [title, *(tables.number(row[key]) for row in numbers['levels'].values())]
      for key, title in _TITLES.items()
      if all(key in row for row in numbers['levels'].values())
    ),
  ]
  parts = [tables.lay_out(rows), tables.lay_out(steps)]
  findings = result['findings']
  if not findings:
    parts.append('Nothing is found to be wrong.')
  for i, finding in enumerate(findings):
    parts.append(
      f'{i + 1}. {finding["name"].capitalize()}. {finding["what"]}\n'
      f'   {finding["todo"]}'
    )
  return '\n\n'.join(parts)
