"""Averages that are kept on the way, to make any other width of afterwards.

`snapshots/<step>.safetensors` holds the averages of a step by
`<width>/<parameter>`, and `<step>.json`, which is written last, how often each
parameter had been updated, and of which stage they are. They are small beside
checkpoints (no moments), and are never deleted: see `train.snapshot_every`.
"""

from collections.abc import Mapping
import json
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict
import numpy as np

from vdm.common import files
from vdm.common import power_averages
from vdm.models import safetensors

FOLDER = 'snapshots'
OBJECTIVES = ('diffusion', 'tokens')  # Of the stages that have them.
DOUBTFUL = 0.5  # Relative difference of weights from which a line says so.


def planned(config: ConfigDict, stage: ConfigDict) -> set[int]:
  """Returns the steps of a stage, from 1 on, whose averages a run keeps.

  Args:
    config: the run's.
    stage: the stage's.
  """
  if stage.objective not in OBJECTIVES:
    return set()
  every, early = config.train.snapshot_every, config.sample.autoguide
  # Also of a stage that ends there, and is too short to be guided so.
  found = {early} if 0 < early <= stage.steps else set()
  if every:
    found |= {*range(every, stage.steps, every), stage.steps}
  return found


def write(
  workdir: epath.Path,
  step: int,
  averages: Mapping[str, Mapping[str, np.ndarray]],
  counts: Mapping[str, int],
  meta: Mapping[str, str],
) -> None:
  """Writes the averages of a step; again, if they are there.

  Args:
    workdir: of the run.
    step: global step.
    averages: {width: {parameter: array}}.
    counts: updates of each parameter so far.
    meta: 'stage', 'objective' and 'dataset', as of a checkpoint.
  """
  folder = workdir / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  tensors = {
    f'{width}/{path}': np.asarray(x)
    for width, leaves in averages.items()
    for path, x in leaves.items()
  }
  files.write_bytes(
    folder / f'{step:08d}.safetensors', safetensors.to_bytes(tensors, {})
  )
  content = {'widths': list(averages), 'counts': dict(counts), **meta}
  files.write_json(folder / f'{step:08d}.json', content)


def steps(workdir: epath.Path) -> list[int]:
  """Returns the steps of which there are snapshots, in order."""
  folder = workdir / FOLDER
  if not folder.exists():
    return []
  names = (path.name for path in folder.iterdir())
  return sorted(
    int(name.removesuffix('.json')) for name in names if name.endswith('.json')
  )


def read_meta(workdir: epath.Path, step: int) -> dict[str, str]:
  """Returns what was written beside the averages of a step, see `write`.

  Raises:
    FileNotFoundError: it was made before snapshots said so.
  """
  info = json.loads((workdir / FOLDER / f'{step:08d}.json').read_text())
  if 'stage' not in info:
    raise FileNotFoundError(
      f'The snapshot of step {step} in {workdir} does not say of which stage '
      'it is: an earlier version of vdm has written it. Name a step that has a '
      'checkpoint.'
    )
  return {name: info[name] for name in ('stage', 'objective', 'dataset')}


def forget_after(workdir: epath.Path, step: int) -> None:
  """Deletes snapshots of later steps, which a resumed run makes again."""
  for later in steps(workdir):
    if later > step:
      for suffix in ('json', 'safetensors'):
        (workdir / FOLDER / f'{later:08d}.{suffix}').unlink(missing_ok=True)


def average_of(
  workdir: epath.Path, width: float, step: int
) -> dict[str, np.ndarray]:
  """Returns the average of any width, as of a step; see `reconstruct`.

  Raises:
    FileNotFoundError: there is no snapshot of that very step.
  """
  if step not in steps(workdir):
    raise FileNotFoundError(
      f'{workdir} has no snapshot of step {step}, which its videos are guided '
      'against (config.sample.autoguide): train with 0 there, or sample with '
      '--autoguide none.'
    )
  return reconstruct(workdir, width, step)


def reconstruct(
  workdir: epath.Path, width: float, until: int
) -> dict[str, np.ndarray]:
  """Makes the average of any width, as of the last snapshot, of all of them.

  Args:
    workdir: of the run.
    width: sigma_rel of the average.
    until: snapshots of later steps are not used.

  Returns:
    {parameter: array}.

  Raises:
    FileNotFoundError: there are none.
    ValueError: no average is as wide as that.
  """
  found = [step for step in steps(workdir) if step <= until]
  if not found:
    raise FileNotFoundError(f'{workdir} has no snapshots of averages.')
  folder, exponent = workdir / FOLDER, power_averages.gamma(width)

  def tensors_of(step):
    path = folder / f'{step:08d}.safetensors'
    return safetensors.parse(path.read_bytes())

  infos = {
    step: json.loads((folder / f'{step:08d}.json').read_text())
    for step in found
  }
  prefix = f'{width:.3f}/'
  if prefix[:-1] in infos[found[-1]]['widths']:  # To the bit.
    return {
      name.removeprefix(prefix): x
      for name, x in tensors_of(found[-1]).items()
      if name.startswith(prefix)
    }
  factors, rests = _factors(infos, exponent)
  result = {}
  for step in found:
    tensors = tensors_of(step)
    for path, of_snapshots in factors.items():
      for name in infos[step]['widths']:
        if factor := of_snapshots.get((step, name)):
          x = factor * tensors[f'{name}/{path}'].astype(np.float64)
          result[path] = result[path] + x if path in result else x
  logging.info(
    'The average of width %.3f is made of %d snapshots, up to step %d; the '
    'weights of steps differ from it by %.0f %% at most.',
    width,
    len(found),
    found[-1],
    100 * max(rests),
  )
  if max(rests) > DOUBTFUL:
    logging.warning(
      'So narrow an average is hardly an average of those: train with smaller '
      'train.snapshot_every, or add the width to optim.ema.'
    )
  return {path: x.astype(np.float32) for path, x in result.items()}


def _factors(
  infos: Mapping[int, Mapping[str, Any]], exponent: float
) -> tuple[dict[str, dict[tuple[int, str], float]], list[float]]:
  """Returns {parameter: {(step, width): factor}}, and what is missed."""
  last = max(infos)
  known, factors, rests = {}, {}, []
  for path, count in infos[last]['counts'].items():
    history = tuple(info['counts'].get(path, 0) for info in infos.values())
    if history not in known:
      known[history] = _combine(infos, history, count, exponent)
      rests.append(known[history][1])
    factors[path] = known[history][0]
  return factors, rests


def _combine(infos, history, count, exponent):
  """The factors of parameters with one history of updates."""
  last = max(infos)
  if not count:  # Never updated: its averages are its value.
    return {(last, infos[last]['widths'][0]): 1.0}, 0.0
  stored = {
    (step, name): power_averages.Average(
      power_averages.gamma(float(name)), updates
    )
    for (step, info), updates in zip(infos.items(), history, strict=True)
    for name in info['widths']
    if updates
  }
  # A parameter that was frozen meanwhile has the same average twice.
  stored = {x: key for key, x in stored.items()}
  found, rest = power_averages.combine(
    list(stored), power_averages.Average(exponent, count)
  )
  return dict(zip(stored.values(), found.tolist(), strict=True)), rest
