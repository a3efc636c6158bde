r"""Varies keys over several seeds, trains every run and compares them.

  python -m vdm.sweep --config configs/synthetic.py \
      --vary stages.video.learning_rate=3e-3,1e-3,1e-2 --seeds 0,1,2 \
      --workdir sweeps/learning_rate

The first value is the baseline. With --alone several --vary are an ablation:
each is changed by itself, the others being at their first values. Runs go one
after the other; the same command resumes, and ends with the table of
vdm.compare. An autoencoder that the keys do not enter is trained once for all.
With --halving, values that are behind after a quarter and after half of the
steps are not trained to the end. Exit codes: 0 finished, 1 a run failed or a
value diverged before it was judged, 2 a mistake in the command, 75 stopped
before the end.
"""

from collections.abc import Sequence
import os
import sys

from absl import app
from absl import flags
from etils import epath

from vdm.common import console
from vdm.common import errors
from vdm.config import flag

_CONFIG = flag.define()
_VARY = flags.DEFINE_multi_string(
  'vary', [], 'The key and its values, as in optim.eps=1e-8,1e-6.'
)
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'One run for each.')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the sweep, local or gs://.'
)
_GRID = flags.DEFINE_bool(
  'grid', False, 'All combinations of several --vary, which change several.'
)
_ALONE = flags.DEFINE_bool(
  'alone', False, 'Several --vary one at a time, the others at the baseline.'
)
_SHARE = flags.DEFINE_bool(
  'share', True, 'Train the autoencoder once, where the key does not enter it.'
)
_PRIMARY = flags.DEFINE_string(
  'primary', '', 'The number that decides, see vdm.compare.'
)
_HALVING = flags.DEFINE_bool(
  'halving', False, 'Stop the worse half of the values at each of --rungs.'
)
_RUNGS = flags.DEFINE_list(
  'rungs', [], "Shares of the last stage's steps; by default 0.25,0.5."
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'List the commands, with their steps and disk; run none.'
)
_SLURM = flags.DEFINE_bool(
  'slurm', False, 'Write an array job in place of running here.'
)


def main(argv: Sequence[str]) -> None:
  del argv
  environ = dict(os.environ)
  # The runs have the accelerator.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from vdm.common import buckets
  from vdm.sweeping import cost
  from vdm.sweeping import execute
  from vdm.sweeping import halving
  from vdm.sweeping import ladder
  from vdm.sweeping import slurm

  console.start()
  try:
    plan = make_plan()
    rungs = make_rungs(plan)
    stopped = ()
    if rungs is not None:
      plan.notes.append(ladder.note(rungs, plan))
      stopped = halving.stopped(rungs, halving.read(rungs, plan))
    if _DRY_RUN.value:
      print(cost.text(plan, stopped), end='')
      return
    for note in plan.notes:
      print(note)
    if _SLURM.value:
      print('\n'.join(slurm.write(plan)))
      return
    with execute.Runner(environ) as runner:
      code, finished = execute.run(plan, runner, rungs)
    decided = halving.read(rungs, plan) if rungs is not None else []
    if decided and code in (0, 1):
      print(halving.text(rungs, decided))
    if finished:
      code = show(finished, plan.workdir, code)
  except (*errors.PATH_ERRORS, ValueError) as error:
    flag.stop(error)
  except buckets.UnreachableError as error:
    print(error, file=sys.stderr)
    code = 1
  sys.exit(code)


def show(runs: Sequence[epath.Path], out: epath.Path, code: int) -> int:
  """Compares the finished runs, prints the table and returns the exit code.

  Args:
    runs: folders of the runs.
    out: folder of the comparison.
    code: of the runs.
  """
  from vdm.reporting import compare_runs

  try:
    print(compare_runs.compare(runs, out, _PRIMARY.value), end='')
  except errors.UsageError as error:
    # Too few have finished, or --primary is no number of theirs.
    print(error, file=sys.stderr)
    return code or errors.USAGE_ERROR
  return code


def make_plan():
  """Returns the plan of what the flags ask for."""
  from vdm.sweeping import plan as plans
  from vdm.sweeping import variations

  if not _WORKDIR.value:
    raise errors.UsageError('--workdir is missing: name a folder.')
  try:
    seeds = [int(seed) for seed in _SEEDS.value]
  except ValueError:
    raise errors.UsageError(
      f'--seeds={",".join(_SEEDS.value)} is not a list of numbers, as in 0,1,2.'
    ) from None
  return plans.make(
    flags.FLAGS['config'].config_filename,
    _CONFIG.value,
    flag.overrides(),
    variations.parse(_VARY.value, _CONFIG.value),
    seeds,
    _WORKDIR.value,
    grid=_GRID.value,
    alone=_ALONE.value,
    share=_SHARE.value,
  )


def make_rungs(plan):
  """Returns where values are judged and stopped; None without --halving."""
  from vdm.sweeping import ladder

  if not _HALVING.value:
    if _RUNGS.value:
      raise errors.UsageError('--rungs is of --halving: give both, or neither.')
    return None
  if _SLURM.value:
    raise errors.UsageError(
      '--halving decides between runs, and the tasks of --slurm start by '
      'themselves: leave one of them out.'
    )
  try:
    shares = [float(share) for share in _RUNGS.value] or ladder.SHARES
  except ValueError:
    raise errors.UsageError(
      f'--rungs={",".join(_RUNGS.value)} is not a list of numbers, as in '
      '0.25,0.5.'
    ) from None
  return ladder.make(plan, _PRIMARY.value, shares)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
