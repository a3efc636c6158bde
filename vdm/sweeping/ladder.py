"""The rungs of a sweep: at which steps its values are judged, and by what.

They are declared before anything runs, with what they cost at most; `halving`
says what happens there.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

from vdm.common import errors
from vdm.reporting import groups
from vdm.reporting import run_numbers
from vdm.reporting import run_record
from vdm.sweeping import plan as plans
from vdm.training import stages

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

  @property
  def seeds_text(self) -> str:
    """How many seeds there are, in words."""
    return f'{len(self.seeds)} seed{"s" if len(self.seeds) > 1 else ""}'


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
      span.start,
      span.stop,
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
    f'Halving by {rungs.primary}: {", ".join(parts)}; of {rungs.seeds_text} '
    f'each, {total:,} of {full:,} steps at most.'
  )


def keep(count: int) -> int:
  """Returns how many of so many values go on from a rung."""
  return max(LEAST, math.ceil(count / 2))


def _counts(count: int, steps: Sequence[int]) -> list[int]:
  """Returns how many values train to each rung, and to the end."""
  found = [count]
  for _ in steps:
    found.append(keep(found[-1]))
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
    workdir=run.folder,
    config=run.config,
    label_names=[],
    rows=[],
    totals={},
    starts=[],
    numbers={},
    # One of its own is another one than that of any other run.
    autoencoder='' if shared else str(run.folder),
    problems=[],
  )
