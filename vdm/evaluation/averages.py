"""Compares averages of a run's parameters, of trained and of other widths."""

from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from vdm import trained
from vdm.common import errors
from vdm.common import files
from vdm.common import tables
from vdm.config import condition_rules
from vdm.evaluation import real_clips
from vdm.trained import run_folder
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import teacher

NAME = 'averages.json'


def compare(
  workdir: epath.PathLike,
  widths: Sequence[float],
  *,
  num: int = 64,
  keep: bool = False,
  report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Measures held-out losses of averages and writes averages.json.

  Args:
    workdir: of a run.
    widths: of the averages; those that the run does not keep are made of its
      snapshots.
    num: held-out clips, at most.
    keep: make the best one the run's: what samples, exports and is evaluated.
    report: called with a line before every average.

  Returns:
    {'step', 'clips', 'best': width, 'losses': {width: {log-SNR: loss}}}, of
    token models {'masked_SHARE': loss}; the losses are with the clips' labels,
    captions and scalars where the network knows any.

  Raises:
    FileNotFoundError: there is no run, or no diffusion model in it yet.
    ValueError: a width cannot be had.
  """
  losses, prefix, run, others = {}, 'val_loss/', None, {}
  for width in widths:
    report(f'width {width:g}')
    run = trained.load(workdir, width, autoguide='none')
    if run.workdir is None:
      raise errors.UsageError(f'{workdir} is an export: it has one average.')
    if not losses:
      if name := condition_rules.told_loss(run.config.model):
        prefix = f'{name}/'
      clips = real_clips.RealClips(run.config.data, run.stage).same(
        'validation',
        num,
        run.reader,
        inputs.scalars_of(run.config.model, run.stage),
      )
      mesh = sharding.make_mesh()
      objective = objectives.make_objective(run.config, run.stage, mesh)
      if run.stage.objective == 'consistency':
        others['teacher'] = teacher.load(run.workdir, objective, mesh)
    found = objective.validate(run.params, run.frozen | others, clips)
    losses[f'{width:g}'] = {
      name.removeprefix(prefix).removeprefix('logsnr_'): value
      for name, value in found.items()
      if name.startswith(prefix)
    }
  best = min(losses, key=lambda width: _mean(losses[width]))
  result = {
    'step': run.step,
    'clips': len(clips['label']),
    'best': float(best),
    'losses': losses,
  }
  files.write_json(run.workdir / NAME, result)
  if keep:
    files.write_json(
      run.workdir / run_folder.CHOSEN,
      {'width': float(best), 'step': run.step},
    )
  return result


def text(result: dict[str, Any]) -> str:
  """Returns the losses as a table, a line for each width."""
  losses = result['losses']
  levels = next(iter(losses.values()))
  masked = all(name.startswith('masked_') for name in levels)
  title = 'share of masked tokens' if masked else 'log-SNR'
  names = [name.removeprefix('masked_') for name in levels]
  rows = [[f'width, loss at {title}', *names, 'mean']]
  for width, found in losses.items():
    rows.append(
      [
        f'{width} (best)' if float(width) == result['best'] else width,
        *(f'{value:.4f}' for value in found.values()),
        f'{_mean(found):.4f}',
      ]
    )
  return tables.lay_out(rows)


def _mean(found):
  return sum(found.values()) / len(found)
