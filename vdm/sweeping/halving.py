"""Successive halving: values that are behind early are not trained to the end.

All values train to the first rung, a step of the last stage. There each is
judged by the mean over its seeds of one number that was named beforehand, and
the better half goes on to the next rung (Jamieson & Talwalkar 2016,
arXiv:1502.07943). The learning rate has the schedule of the whole run all the
while, and resuming is exact: a run that goes on is as if nothing stopped it.

Two values go on at least, and the baseline always does unless it fails or
diverges: it is what others are compared with. Where fewer than two are left the
sweep ends. What was decided stands in `halving.json` and is not decided again.
"""

from collections.abc import Mapping, Sequence
import json
import math
from typing import Any

from vdm.common import errors
from vdm.common import files
from vdm.common import tables
from vdm.config import suggest
from vdm.reporting import run_numbers
from vdm.reporting import run_record
from vdm.sweeping import ladder
from vdm.sweeping import plan as plans

RECORD = 'halving.json'


def begin(rungs: ladder.Rungs, plan: plans.Plan) -> list[dict[str, Any]]:
  """Declares the rungs on disk, and returns what was decided before.

  Raises:
    UsageError: see `read`.
  """
  decided = read(rungs, plan)
  if not (plan.workdir / RECORD).exists():
    _write(rungs, plan, decided)
  return decided


def read(rungs: ladder.Rungs, plan: plans.Plan) -> list[dict[str, Any]]:
  """Returns what was decided at the rungs so far.

  Raises:
    UsageError: something else was declared there.
  """
  path = plan.workdir / RECORD
  if not path.exists():
    return []
  content = json.loads(path.read_text())
  decided = content.pop('decided')
  if content != json.loads(json.dumps(rungs._asdict())):
    raise errors.UsageError(
      f'{path} was begun with other values, seeds or rungs, or by another '
      'number: give another --workdir, or delete it to decide again.'
    )
  return decided


def stopped(
  rungs: ladder.Rungs, decided: Sequence[Mapping[str, Any]]
) -> set[str]:
  """Returns the values that do not go on."""
  kept = decided[-1]['kept'] if decided else rungs.values
  return {*rungs.values} - {*kept}


def reached(run: plans.Run, rungs: ladder.Rungs, step: int) -> bool:
  """Returns whether a run has logged the number at a rung's step."""
  if not run_record.is_run(run.folder):
    return False
  return _number(run, rungs, step) is not None


def decide(
  rungs: ladder.Rungs,
  plan: plans.Plan,
  decided: Sequence[Mapping[str, Any]],
  runs: Sequence[plans.Run],
  failed: Sequence[plans.Run],
) -> dict[str, Any]:
  """Judges the values at a rung, writes down what goes on and returns it.

  Args:
    rungs: of the sweep.
    plan: of the sweep.
    decided: at the rungs before.
    runs: that are at the rung, or failed on the way.
    failed: which of them did.

  Raises:
    UsageError: a run is at the rung and has no such number.
  """
  step = rungs.steps[len(decided)]
  lost = {ladder.value_of(run) for run in failed}
  found = {}
  for run in runs:
    if ladder.value_of(run) in lost:
      continue
    number = _number(run, rungs, step)
    if number is None:
      names = {n for row in run_record.read(run.folder).rows for n in row}
      raise errors.UsageError(
        f'{run.folder} has no {rungs.primary} at step {step}'
        f'{suggest.hint(rungs.logged, sorted(names))} Give another --primary '
        'and --workdir.'
      )
    found.setdefault(ladder.value_of(run), []).append(number)
  scores = {value: sum(x) / len(x) for value, x in found.items()}
  sign = run_numbers.direction(rungs.primary)
  # NaN is what diverges without failing.
  ranked = sorted(
    (value for value, x in scores.items() if math.isfinite(x)),
    key=lambda value: -sign * scores[value],
  )
  count = len({ladder.value_of(run) for run in runs})
  kept = ranked[: ladder.keep(count)]
  baseline = rungs.values[0]
  if baseline in ranked and baseline not in kept:
    kept[-1] = baseline
  decision = {
    'step': step,
    'scores': {k: x for k, x in scores.items() if math.isfinite(x)},
    'kept': [value for value in rungs.values if value in kept],
    'failed': [value for value in rungs.values if value in lost],
  }
  _write(rungs, plan, [*decided, decision])
  return decision


def text(rungs: ladder.Rungs, decided: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table of the rungs: a line for each value."""
  better = 'higher' if run_numbers.direction(rungs.primary) > 0 else 'lower'
  head = [f'step {decision["step"]:,}' for decision in decided]
  rows = [['', *head, '']]
  on = 'to the end' if len(decided) == len(rungs.steps) else 'goes on'
  if decided and len(decided[-1]['kept']) < ladder.LEAST:
    on = 'the only one left'
  for value in rungs.values:
    cells, state = [], on
    for decision in decided:
      if state != on:
        cells.append('-')
        continue
      score = decision['scores'].get(value)
      cells.append('-' if score is None else f'{score:.5g}')
      if value in decision['failed']:
        state = f'failed before step {decision["step"]:,}'
      elif value not in decision['scores']:
        state = f'diverged before step {decision["step"]:,}'
      elif value not in decision['kept']:
        state = f'stopped at step {decision["step"]:,}'
    title = f'{value} (baseline)' if value == rungs.values[0] else value
    rows.append([title, *cells, state])
  return (
    f'Halving by {rungs.primary}, {better} is better; means over '
    f'{rungs.seeds_text}. Only what went to the end is compared.\n'
    f'{tables.lay_out(rows)}\n'
  )


def _number(run: plans.Run, rungs: ladder.Rungs, step: int) -> float | None:
  """Returns the number of a run at a step; None if it is not logged there."""
  record = run_record.read(run.folder)
  rows = [row for row in record.rows if row['step'] <= step]
  at = [row for row in rows if row['step'] == step and rungs.logged in row]
  if not at:
    return None
  # A training loss is a mean over some rows.
  record = record._replace(rows=rows)
  numbers = run_numbers.of_logs(record, {'steps': float(step)})
  return numbers[rungs.primary]


def _write(rungs, plan, decided) -> None:
  plan.workdir.mkdir(parents=True, exist_ok=True)
  content = {**rungs._asdict(), 'decided': decided}
  files.write_json(plan.workdir / RECORD, content, allow_nan=False)
