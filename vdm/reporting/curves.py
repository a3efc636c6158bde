"""The charts of a run's log: known values together, and nothing left out."""

from collections.abc import Iterable, Sequence
import re
from typing import NamedTuple

import numpy as np

from vdm.media import charts
from vdm.reporting import run_record

# Horizontal axes: {name: title}.
AXES = {
  'step': 'steps',
  'hours': 'hours of training steps',
  'TFLOP': 'TFLOP of training steps',
}
LIMIT = 60_000  # Points of a page, at most.


class Panel(NamedTuple):
  """Which values are one chart.

  Attributes:
    title: of the chart, with the unit.
    pattern: of the names; its first group, if any, names the line.
    logarithmic: its vertical axis.
    baseline: pattern of names that are drawn dashed, in the same colours.
    by_stage: a line for each stage, where there are several.
  """

  title: str
  pattern: str
  logarithmic: bool = False
  baseline: str = ''
  by_stage: bool = False


PANELS = (
  Panel('training loss', r'loss$', True, by_stage=True),
  Panel('training loss by noise level (log-SNR)', r'loss/logsnr_(.*)', True),
  Panel('training loss by share of masked tokens', r'loss/masked_(.*)', True),
  Panel(
    'masked tokens that are told right, of all and by their share',
    r'(accuracy(?:/masked_.*)?)$',
  ),
  Panel('validation loss', r'(val_loss(?:_labelled|_captioned|_told)?)$', True),
  Panel(
    'validation loss by share of masked tokens',
    r'(val_loss(?:_labelled|_captioned|_told)?/masked_.*)',
    True,
  ),
  Panel(
    'validation loss by noise level; dashed: of predicting x0 = 0',
    r'val_loss/logsnr_(.*)',
    True,
    r'val_loss_of_zero/logsnr_(.*)',
  ),
  Panel(
    'the same with labels',
    r'val_loss_(?:labelled|told)/logsnr_(.*)',
    True,
    r'val_loss_of_zero/logsnr_(.*)',
  ),
  Panel(
    'the same with captions',
    r'val_loss_captioned/logsnr_(.*)',
    True,
    r'val_loss_of_zero/logsnr_(.*)',
  ),
  Panel('autoencoder: PSNR of held-out clips, dB', r'val_psnr$'),
  Panel('autoencoder: parts of the loss', r'(l1|l2|multiscale|kl)$', True),
  Panel(
    'small score: distance from few held-out clips, %',
    r'small_score/(?!flow_ratio|kept_from_)(.*)',
  ),
  Panel(
    'small score: shapes kept from clips with noise of sigma/alpha, %',
    r'small_score/kept_from_(.*)',
  ),
  Panel('small score: flow of samples / real', r'small_score/(flow_ratio)'),
  Panel('norm of the gradient', r'grad_norm$', True, by_stage=True),
  Panel('norm of the parameters', r'param_norm$', by_stage=True),
  Panel('learning rate', r'learning_rate$', by_stage=True),
  Panel('clips a second', r'clips_per_second$', by_stage=True),
  Panel('TFLOP a second', r'tflops_per_second$', by_stage=True),
  Panel('share of the time that waits for data', r'data_wait_share$'),
  Panel('peak of the memory, GiB', r'((?:device|host_rss)_peak_gib)$'),
  Panel('skipped steps and replaced records', r'(skipped_steps|bad_records)$'),
)
# Drawn as axes, constant, or no curve.
_LEFT_OUT = re.compile(
  r'(step|stage|resumed_from|train_\w+|seconds_per_step|compile_seconds'
  r'|tflops_per_step)$'
)


def panels_of(names: Iterable[str]) -> list[Panel]:
  """Returns the charts that a log's values make, those nobody knows last."""
  left = {name for name in names if not _LEFT_OUT.match(name)}
  found = []
  for panel in PANELS:
    mine = {name for name in left if re.match(panel.pattern, name)}
    if mine:
      found.append(panel)
  known = [p for panel in PANELS for p in (panel.pattern, panel.baseline) if p]
  others = sorted(n for n in left if not any(re.match(p, n) for p in known))
  return found + [Panel(name, f'{re.escape(name)}$') for name in others]


def charts_of(record: run_record.Record) -> list[str]:
  """Returns the charts of a run, as HTML."""
  names = {name for row in record.rows for name in row}
  panels = panels_of(names)
  lines = [_lines(record, panel, names) for panel in panels]
  count = max(1, sum(map(len, lines)))
  bins = max(20, min(charts.BINS, LIMIT // (2 * count)))
  return [
    charts.chart(panel.title, series, logarithmic=panel.logarithmic, bins=bins)
    for panel, series in zip(panels, lines)
    if series
  ]


def series_of(
  record: run_record.Record, name: str, title: str, stage: str = '', **kind
) -> charts.Series:
  """Returns a value's line over all `AXES`.

  Args:
    record: of the run.
    name: of the value in its log.
    title: of the line.
    stage: whose rows count; '' for all.
    **kind: colour and dashes, see `charts.Series`.
  """
  rows = [
    i
    for i, row in enumerate(record.rows)
    if name in row and stage in ('', row['stage'])
  ]
  x = {
    'step': np.array([record.rows[i]['step'] for i in rows]),
    'hours': record.totals['train_seconds'][rows] / 3600,
    'TFLOP': record.totals['train_tflop'][rows],
  }
  y = np.array([record.rows[i][name] for i in rows], np.float64)
  return charts.Series(title, x, y, **kind)


def _lines(
  record: run_record.Record, panel: Panel, names: set[str]
) -> list[charts.Series]:
  stages = dict.fromkeys(row['stage'] for row in record.rows)
  if panel.by_stage and len(stages) > 1:
    (name,) = {n for n in names if re.match(panel.pattern, n)}
    lines = [
      series_of(record, name, stage, stage, colour=i)
      for i, stage in enumerate(stages)
    ]
    return [line for line in lines if len(line.y)]
  found, titles = [], []
  for pattern, dashed in ((panel.pattern, False), (panel.baseline, True)):
    matches = [re.match(pattern, n) for n in names] if pattern else []
    matches = sorted(filter(None, matches), key=lambda m: _order(m.string))
    for match in matches:
      title = match[1] if match.re.groups else match.string
      title = title.replace('_to_', ' to ')
      if title not in titles:
        titles.append(title)
      line = series_of(
        record,
        match.string,
        f'{title}, x0 = 0' if dashed else title,
        colour=titles.index(title),
        dashed=dashed,
      )
      found.append(line)
  return found


def _order(name: str) -> Sequence[object]:
  """Sorts noise levels by number, the noisiest first, and all else by name."""
  level = re.search(r'logsnr_([-+]?(?:inf|[\d.]+))', name)
  return (0, float(level[1]), name) if level else (1, 0.0, name)
