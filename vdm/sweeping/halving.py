"""Successive halving: values that are behind early are not trained to the end.

All values train to the first rung, a step of the last stage. There each is
judged by the mean over its seeds of one number that was named beforehand, and
the better half goes on to the next rung (Jamieson & Talwalkar 2016,
arXiv:1502.07943). The learning rate has the schedule of the whole run all the
while, and resuming is exact: a run that goes on is as if nothing stopped it.

Two values go on at least, and the baseline always does unless it fails: it is
what others are compared with. What was decided stands in `halving.json` and is
not decided again.
"""

from collections.abc import Mapping, Sequence
import json
import math
from typing import Any, NamedTuple

from vdm.common import errors
from vdm.common import files
from vdm.common import tables
from vdm.config import suggest
from vdm.reporting import groups
from vdm.reporting import run_numbers
from vdm.reporting import run_record
from vdm.sweeping import plan as plans
from vdm.training import stages

RECORD = 'halving.json'
# A rung of half the steps, and one of half of that: then each rung costs as
# much as the one before it, and all together half of the whole sweep.
SHARES = (0.25, 0.5)
LEAST = 2  # Values that go on: one compares with nothing.


class Rungs(NamedTuple):
  """When values are judged, and by what.

  Attributes:
    primary: the number, as in 'log/val_loss@steps'.
    steps: global steps of the rungs, rising.
    values: names of the values, the baseline first; see `value_of`.
    seeds: of each.
  """

  primary: str
  steps: list[int]
  values: list[str]
  seeds: list[int]

  @property
  def logged(self) -> str:
    """The name of the number in the log."""
    return self.primary.removeprefix('log/').removesuffix('@steps')


def value_of(run: plans.Run) -> str:
  """Returns the name of a run's value, which is that of their folder."""
  return run.folder.parent.name


def make(
  plan: plans.Plan, primary: str = '', shares: Sequence[float] = SHARES
) -> Rungs:
  """Declares the rungs of a sweep.

  Args:
    plan: of the sweep.
    primary: the number that decides; by default that of `vdm.compare`.
    shares: of the last stage's steps at which values are judged.

  Raises:
    UsageError: values cannot be judged so, or none would be stopped.
  """
  values = list(dict.fromkeys(map(value_of, plan.runs)))
  if len(values) <= LEAST:
    raise errors.UsageError(
      f'--halving keeps {LEAST} values at least, and there are {len(values)}: '
      'leave it out, or name more.'
    )
  if list(shares) != sorted({x for x in shares if 0 < x < 1}) or not shares:
    raise errors.UsageError(
      '--rungs takes rising shares between 0 and 1, as in --rungs 0.25,0.5.'
    )
  records = [_planned(plan, run) for run in plan.runs]
  primary = primary or groups.default_primary(records[0])
  _check_number(primary, groups.make(records))
  config = plan.runs[0].config
  span, every = stages.spans(config)[-1], _every(primary, config)
  for run in plan.runs:
    own = stages.spans(run.config)[-1]
    if (own.start, own.stop, _every(primary, run.config)) != (
      *(span.start, span.stop),
      every,
    ):
      raise errors.UsageError(
        '--halving judges all values at equal steps, and --vary changes how '
        f'many steps there are, or when {primary} is logged: leave it out.'
      )
  first = span.start + every
  if not every or shares[0] * span.stage.steps < every:
    raise errors.UsageError(
      f'--rungs={shares[0]:g} of the {span.stage.steps} steps of stage '
      f'{span.name} is before the first {primary}, '
      + (f'at step {first}' if every else 'which is never logged')
      + ': take later rungs, or evaluate more often.'
    )
  # Where the number is logged, and it needs no interpolation.
  counts = [int(x * span.stage.steps / every) for x in shares]
  steps = [span.start + every * n for n in sorted(set(counts))]
  return Rungs(
    primary,
    # Where two are left, nothing is left to decide.
    [step for step, n in zip(steps, _counts(len(values), steps)) if n > LEAST],
    values,
    sorted({run.config.seed for run in plan.runs}),
  )


def note(rungs: Rungs, plan: plans.Plan) -> str:
  """Returns what the rungs will cost at most, in a sentence."""
  whole = stages.spans(plan.runs[0].config)[-1].stop
  counts = _counts(len(rungs.values), rungs.steps)
  parts, total, before = [], 0, 0
  for count, step in zip(counts, [*rungs.steps, whole]):
    total += count * len(rungs.seeds) * (step - before)
    parts.append(f'{count} values to step {step:,}')
    before = step
  full = counts[0] * len(rungs.seeds) * whole
  return (
    f'Halving by {rungs.primary}: {", ".join(parts)}; of {_seeds(rungs)} each, '
    f'{total:,} of {full:,} steps at most.'
  )


def open_record(rungs: Rungs, plan: plans.Plan) -> list[dict[str, Any]]:
  """Declares the rungs on disk, and returns what was decided before.

  Raises:
    UsageError: something else was declared there.
  """
  path = plan.workdir / RECORD
  if not path.exists():
    _write(rungs, plan, [])
    return []
  content = json.loads(path.read_text())
  decided = content.pop('decided')
  if content != json.loads(json.dumps(rungs._asdict())):
    raise errors.UsageError(
      f'{path} was begun with other values, seeds or rungs, or by another '
      'number: give another --workdir, or delete it to decide again.'
    )
  return decided


def reached(run: plans.Run, rungs: Rungs, step: int) -> bool:
  """Returns whether a run has been judged by its log at a rung's step."""
  if not run_record.is_run(run.folder):
    return False
  return _number(run, rungs, step) is not None


def decide(
  rungs: Rungs,
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
  lost = {value_of(run) for run in failed}
  found = {}
  for run in runs:
    if value_of(run) in lost:
      continue
    number = _number(run, rungs, step)
    if number is None:
      names = {n for row in run_record.read(run.folder).rows for n in row}
      raise errors.UsageError(
        f'{run.folder} has no {rungs.primary} at step {step}'
        f'{suggest.hint(rungs.logged, sorted(names))} Give another --primary '
        'and --workdir.'
      )
    found.setdefault(value_of(run), []).append(number)
  scores = {value: sum(x) / len(x) for value, x in found.items()}
  sign = run_numbers.direction(rungs.primary)
  # NaN is what diverges without failing.
  ranked = sorted(
    (value for value, x in scores.items() if math.isfinite(x)),
    key=lambda value: -sign * scores[value],
  )
  count = len({value_of(run) for run in runs})
  kept = ranked[: _keep(count)]
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


def text(rungs: Rungs, decided: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table of the rungs: a line for each value."""
  better = 'higher' if run_numbers.direction(rungs.primary) > 0 else 'lower'
  head = [f'step {decision["step"]:,}' for decision in decided]
  rows = [['', *head, '']]
  for value in rungs.values:
    cells, state = [], 'to the end'
    for decision in decided:
      if state != 'to the end':
        cells.append('-')
        continue
      score = decision['scores'].get(value)
      cells.append('-' if score is None else f'{score:.5g}')
      if value in decision['failed']:
        state = f'failed before step {decision["step"]:,}'
      elif value not in decision['kept']:
        state = f'stopped at step {decision["step"]:,}'
    title = f'{value} (baseline)' if value == rungs.values[0] else value
    rows.append([title, *cells, state])
  return (
    f'Halving by {rungs.primary}, {better} is better; means over '
    f'{_seeds(rungs)}. Only what went to the end is compared.\n'
    f'{tables.lay_out(rows)}\n'
  )


def _seeds(rungs: Rungs) -> str:
  return f'{len(rungs.seeds)} seed{"s" if len(rungs.seeds) > 1 else ""}'


def _keep(count: int) -> int:
  return max(LEAST, math.ceil(count / 2))


def _counts(count: int, steps: Sequence[int]) -> list[int]:
  """Returns how many values train to each rung, and to the end."""
  found = [count]
  for _ in steps:
    found.append(_keep(found[-1]))
  return found


def _check_number(primary, found) -> None:
  """Raises a UsageError unless values can be judged by a number of the log."""
  if not (primary.startswith('log/') and primary.endswith('@steps')):
    raise errors.UsageError(
      f'--halving judges runs before they are finished, at equal steps, and '
      f'{primary} is not of the log: give --primary log/val_loss@steps.'
    )
  if not run_numbers.direction(primary):
    raise errors.UsageError(
      f'--primary={primary}: which way it is better is not known, so --halving '
      'cannot judge by it: give log/val_loss@steps.'
    )
  for other in found[1:]:
    if key := groups.obstacle(found[0], other, primary):
      raise errors.UsageError(
        f'--primary={primary} compares nothing where {key} differs: give '
        'another one, or leave --halving out.'
      )


def _every(primary, config) -> int:
  """Returns the steps between two values of a number of the log."""
  if primary.startswith('log/val_'):
    return config.train.eval_every
  if primary.startswith('log/small_score/'):
    return config.score.every
  return config.train.log_every


def _planned(plan: plans.Plan, run: plans.Run) -> run_record.Record:
  """Returns the record of a run before it begins."""
  shared = plan.shared is not None
  return run_record.Record(
    *(run.folder, run.config, [], [], {}, [], {}),
    # One of its own is another one than that of any other run.
    autoencoder='' if shared else str(run.folder),
    problems=[],
  )


def _number(run: plans.Run, rungs: Rungs, step: int) -> float | None:
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
