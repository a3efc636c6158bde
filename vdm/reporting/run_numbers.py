"""Every number of a run, by name, and which way each is better.

  final/truth/NAME           of final/metrics.json, of one straight mover
  final/laws/NAME            of the same, of all synthetic scenes
  final/captions/GROUP/NAME  of the same, of scenes made for captions
  final/given/TASK/NAME      of the same, of videos with given frames
  final/given/TASK/laws/NAME of the same, of rollouts of synthetic scenes
  final/enlargement/NAME     of the same, of videos made large
  card/PART/MEASURE          of evaluation/run/metrics_card.json
  autoencoder/NAME           of autoencoder/report.json
  cost/NAME                  of the whole run, from its log
  log/NAME@BUDGET            of its log, at equal steps, seconds or TFLOP

Numbers of the samples only: of real or corrupted clips there is nothing to
compare.
"""

from collections.abc import Iterator, Sequence
import re
from typing import Any

import numpy as np

from vdm.reporting import run_record

# Of the log, as totals: {budget: name in `spent`}; steps are the rows' own.
BUDGETS = {'steps': '', 'seconds': 'train_seconds', 'tflop': 'train_tflop'}
WINDOW = 0.05  # Of a budget: training values are means over its end.
# Logged values that say nothing about quality, or have a place in cost/.
_NOT_COMPARED = re.compile(
  r'(step|stage|resumed_from|learning_rate|train_\w+|compile_seconds'
  r'|tflops_per_step|val_loss_of_zero/.*|seconds_per_step|clips_per_second'
  r'|data_wait_share|tflops_per_second|share_of_peak_flops|.*_peak_gib'
  r'|skipped_steps|bad_records)$'
)
_PARTS = {'synthetic_truth': 'truth', 'laws': 'laws'}
# Of the last stage, as medians over the rows.
_RATES = (
  'seconds_per_step',
  'clips_per_second',
  'data_wait_share',
  'tflops_per_second',
  'share_of_peak_flops',
)
_LAST = ('skipped_steps', 'bad_records')
# What needs no test, as equal configurations always give it.
EXACT = ('cost/steps', 'cost/train_tflop', 'cost/train_clips')

LOWER = re.compile(
  r'(log/(val_)?loss(_labelled|_captioned|_told)?[/@]'
  r'|log/small_score/(motion|spectrum|texture|appearance|panel)@'
  r'|card/energy/|card/panel/.*/distance$|card/fvd|final/enlargement/flicker$'
  r'|final/given/\w+/(position|size|hue)_error$'
  r'|cost/(seconds_per_step|train_|.*_peak_gib|skipped_steps|bad_records'
  r'|data_wait_share)'
  r'|(final|card)/(given/rollout/)?(truth|laws)/(residual_percent|colour_drift'
  r'|size_variation|count_error|switches|hue_drift|shape_variation'
  r'|shape_distance|acceleration|bounce|speed_distance)$)'
)
HIGHER = re.compile(
  r'(log/val_psnr@|log/small_score/kept_from_|log/accuracy[/@]'
  r'|.*/(psnr|ssim)(_best)?$'
  r'|cost/(clips_per_second|share_of_peak_flops)|card/inception/score$'
  r'|final/fixed_clips_psnr$|final/captions/'
  r'|final/given/\w+/(one_object|shape_given)$'
  r'|(final|card)/(given/rollout/)?(truth|laws)/(label_agreement|present_share'
  r'|single_share|tracked|\w+_kept|clear|on_time|crosses)$)'
)


def direction(name: str) -> int:
  """Returns 1 if a number is better when higher, -1 when lower, 0 unknown."""
  if LOWER.match(name):
    return -1
  return 1 if HIGHER.match(name) else 0


def of_files(record: run_record.Record) -> dict[str, float]:
  """Returns the numbers of a run's files: final/, card/ and autoencoder/."""
  found = {}
  final = record.numbers.get(run_record.FINAL, {})
  for part, title in _PARTS.items():
    rows = final.get(part, {}).get('samples', {})
    found |= _named(f'final/{title}', rows)
  for group, rows in final.get('captions', {}).get('samples', {}).items():
    found |= _named(f'final/captions/{group}', rows)
  for task, row in final.get('given', {}).items():
    found |= _named(f'final/given/{task}', row['sets']['model'])
    laws = row.get('laws', {}).get('model', {})
    found |= _named(f'final/given/{task}/laws', laws)
  rows = final.get('enlargement', {}).get('sets', {}).get('model', {})
  found |= _named('final/enlargement', rows)
  psnr = final.get('fixed_clips_psnr', {}).get('samples')
  found |= _named('final', {'fixed_clips_psnr': psnr})
  card = record.numbers.get(run_record.CARD, {})
  for name, row in card.get('energy', {}).items():
    found |= _named('card/energy', {name: row['samples'].get('energy')})
  for name, row in card.get('panel', {}).get('samples', {}).items():
    found |= _named(f'card/panel/{name}', {'distance': row['distance']})
  for name in card:
    if name.startswith('fvd'):
      row = card[name]['samples']
      keys = ('frechet', 'kernel', 'infinity')
      found |= _named(f'card/{name}', {k: row.get(k) for k in keys})
  score = card.get('inception', {}).get('samples', {}).get('score')
  found |= _named('card/inception', {'score': score})
  for part, title in _PARTS.items():
    rows = card.get(part, {}).get('samples', {})
    found |= _named(f'card/{title}', rows)
  report = record.numbers.get(run_record.AUTOENCODER, {})
  for values in list(report.get('mean', {}).values())[:1]:
    found |= _named('autoencoder', values)
  return found


def of_costs(record: run_record.Record) -> dict[str, float]:
  """Returns what a run took: time, operations, speed, memory, failures."""
  rows = [row for row in record.rows if 'seconds_per_step' in row]
  if not rows:
    return {}
  found = {'steps': record.step}
  found |= {name: sums[-1] for name, sums in record.totals.items()}
  last = [row for row in rows if row['stage'] == rows[-1]['stage']]
  for name in _RATES:
    values = [row[name] for row in last if name in row]
    if values:
      found[name] = np.median(values)
  for name in ('device_peak_gib', 'host_rss_peak_gib'):
    values = [row[name] for row in rows if name in row]
    if values:
      found[name] = max(values)
  found |= {name: rows[-1][name] for name in _LAST if name in rows[-1]}
  return _named('cost', found)


def common_budgets(
  records: Sequence[run_record.Record],
) -> dict[str, float]:
  """Returns the largest budgets that all runs have reached, by name."""
  return {
    budget: min(_axis(record, budget).max(initial=0.0) for record in records)
    for budget in BUDGETS
  }


def of_logs(
  record: run_record.Record, budgets: dict[str, float]
) -> dict[str, float]:
  """Returns the logged values of a run at equal budgets.

  A value of training is the mean over the rows of the budget's last part,
  `WINDOW`; one of evaluations is interpolated between the two around it, or is
  the last one. A run without any by then has none.

  Args:
    record: of the run.
    budgets: see `common_budgets`.
  """
  found = {}
  names = sorted({name for row in record.rows for name in row})
  for name in names:
    if _NOT_COMPARED.match(name):
      continue
    at = [i for i, row in enumerate(record.rows) if name in row]
    y = np.array([record.rows[i][name] for i in at], float)
    training = 'seconds_per_step' in record.rows[at[0]]
    for budget, limit in budgets.items():
      x = _axis(record, budget)[at]
      value = _value_at(x, y, limit, training=training)
      if value is not None:
        found[f'log/{name}@{budget}'] = value
  return found


def _axis(record, budget) -> np.ndarray:
  if budget == 'steps':
    return np.array([row['step'] for row in record.rows], float)
  return record.totals[BUDGETS[budget]][: len(record.rows)]


def _value_at(x, y, limit, *, training) -> float | None:
  # Sums of floats: the end of one run is not above its own evaluation there.
  before = x <= limit * (1 + 1e-9)
  if limit <= 0 or not before.any():
    return None
  if training:
    window = before & (x > (1 - WINDOW) * limit)
    chosen = y[window] if window.any() else y[before][-1:]
    return float(chosen.mean())
  return float(np.interp(limit, x, y))


def _named(prefix: str, values: dict[str, Any]) -> dict[str, float]:
  return dict(_finite(prefix, values))


def _finite(prefix, values) -> Iterator[tuple[str, float]]:
  for name, value in values.items():
    if name == 'clips' or isinstance(value, bool):
      continue
    if isinstance(value, (int, float, np.number)) and np.isfinite(value):
      yield f'{prefix}/{name}', float(value)
