"""An array job for Slurm: each task is one run, by launch/slurm.sbatch."""

from collections.abc import Sequence
import pathlib
import shlex

from vdm.common import errors
from vdm.common import files
from vdm.sweeping import plan as plans

SCRIPT = 'launch/slurm.sbatch'
RUNS, SHARED = 'sweep.sbatch', 'shared.sbatch'


def write(plan: plans.Plan, launcher: str = SCRIPT) -> list[str]:
  """Writes the scripts, and returns the commands that submit them.

  Of a sweep that is finished it writes none, and compares.

  Args:
    plan: of the sweep.
    launcher: the script that trains one run, from the working copy's root.

  Raises:
    UsageError: a latent cache is missing, which no such script makes, or the
      launcher is.
  """
  todo = [run for run in plan.runs if not plans.is_done(run)]
  runs = shlex.quote(str(plan.workdir / 'runs'))
  out = shlex.quote(str(plan.workdir))
  compare = f'python -m vdm.compare {runs} --out {out}'
  if not todo:
    return [compare]
  if plan.latents and not plans.latents_are_there(plan):
    words = shlex.join(['python', '-m', 'vdm.prepare', *plan.latents])
    raise errors.UsageError(
      'Write the latent cache first, once the autoencoder of '
      f'{plan.workdir / plans.SHARED} is trained: {words}.'
    )
  path = pathlib.Path(launcher)
  if not path.exists():
    raise errors.UsageError(
      f'There is no {launcher}: call this in the root of the working copy.'
    )
  options = [
    line for line in path.read_text().splitlines() if line.startswith('#SBATCH')
  ]
  plan.workdir.mkdir(parents=True, exist_ok=True)
  commands, wait = [], ''
  if plan.shared is not None and not plans.is_done(plan.shared):
    where = plan.workdir / SHARED
    files.write_text(where, script([plan.shared], options, launcher))
    commands.append(f'job=$(sbatch --parsable {shlex.quote(str(where))})')
    wait = '--dependency=afterok:$job '
  where = plan.workdir / RUNS
  files.write_text(where, script(todo, options, launcher))
  commands.append(f'sbatch {wait}{shlex.quote(str(where))}')
  return [*commands, f'# when all have finished\n{compare}']


def script(
  runs: Sequence[plans.Run], options: Sequence[str], launcher: str
) -> str:
  """Returns the text of an array job with a task for each run."""
  cases = [
    f'  # {run.title}\n  {i}) set -- {shlex.join(run.arguments)} ;;'
    for i, run in enumerate(runs)
  ]
  lines = [
    '#!/usr/bin/env bash',
    '# Written by python -m vdm.sweep: a task of the array for each run. Each',
    '# puts itself back into the queue until it has finished. Submit it in the',
    '# root of the working copy; options of sbatch override these.',
    *options,
    f'#SBATCH --array=0-{len(runs) - 1}',
    '',
    'set -euo pipefail',
    '',
    'cd "${SLURM_SUBMIT_DIR:-.}"',
    'case ${SLURM_ARRAY_TASK_ID:-} in',
    *cases,
    '  *)',
    '    echo "Submit this script: sbatch $0." >&2',
    '    exit 2',
    '    ;;',
    'esac',
    f'exec bash {shlex.quote(launcher)} "$@"',
  ]
  return '\n'.join(lines) + '\n'
