"""A plan as plain data, and as tables."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from ml_collections import ConfigDict

from vdm.common import tables
from vdm.config import check
from vdm.models.image_unets import published
from vdm.planning import costs
from vdm.planning import data_rate
from vdm.planning import disk
from vdm.planning import fit
from vdm.planning import targets
from vdm.training import throughput

SHARES = (0.2, 0.35, 0.5)  # Of the devices' peak, for the times.
USUAL = 0.35
GIB = 2.0**30


def make(
  config: ConfigDict,
  wanted: Sequence[targets.Target],
  *,
  compile_seconds: float,
  data_seconds: float,
) -> dict[str, Any]:
  """Returns the plan of a run.

  Args:
    config: the run's.
    wanted: the targets.
    compile_seconds: limit of one compilation; 0: none is made.
    data_seconds: to time the pipeline for; 0: it is not timed.

  Returns:
    {'stages': {name: numbers}, 'targets': {name: {'stages': {name: numbers},
    'hours': {share of peak: hours}}}, 'disk': {what: bytes or None}}; see
    `stage_numbers` and `target_numbers`.
  """
  check.validate(config)
  config = config.copy_and_resolve_references()
  config.model = published.resolve(config.model)
  check.validate(config)
  counted = {name: costs.count(config, name) for name in config.train.order}
  rates = {
    name: data_rate.measure(config, name, data_seconds)
    if data_seconds
    else None
    for name in config.train.order
  }
  rematerialised = functools.cache(lambda name: _kept_if_remat(config, name))
  largest = max(cost.state for cost in counted.values())
  parameters = max(cost.parameters for cost in counted.values())
  return {
    'stages': {
      name: stage_numbers(config, name, cost) | {'pipeline': rates[name]}
      for name, cost in counted.items()
    },
    'targets': {
      target.name: target_numbers(
        config, target, counted, compile_seconds, rematerialised
      )
      for target in wanted
    },
    'disk': {
      'data set': disk.data_set(config),
      'latent cache': disk.latents(config),
      'checkpoints': disk.checkpoints(config, largest, parameters),
    }
    | _snapshots(config, counted),
  }


def stage_numbers(
  config: ConfigDict, name: str, cost: costs.Cost
) -> dict[str, Any]:
  """Returns what a stage needs anywhere; bytes and 10^12 operations."""
  stage = config.stages[name]
  return {
    'steps': stage.steps,
    'batch': stage.batch,
    'frames': stage.frames,
    'parameters': cost.parameters,
    'trained': cost.trained,
    'state': cost.state,
    'tflop': cost.tflop,
  }


def target_numbers(
  config: ConfigDict,
  target: targets.Target,
  counted: dict[str, costs.Cost],
  compile_seconds: float,
  rematerialised: Callable[[str], float],
) -> dict[str, Any]:
  """Returns what a run needs of a target.

  Args:
    config: the run's.
    target: the devices.
    counted: {stage: its cost}.
    compile_seconds: limit of one compilation; 0: none is made.
    rematerialised: stage -> `Cost.kept` with `model.remat=block`.

  Returns:
    {'devices', 'memory': bytes of a device, 'stages': {name: {'peak': bytes of
    a device, 'source', 'why', 'largest': clips of a batch, 'fits', 'overrides',
    'clips': a second at `USUAL` of peak}}, 'hours': {share: hours}}. A stage
    that cannot run on so many devices has {'problem': why}, and the run then
    no hours.
  """
  peak = target.peak if config.train.compute_dtype == 'bfloat16' else None
  found = {}
  for name, cost in counted.items():
    if problem := check.device_problem(config, name, target.devices):
      found[name] = {'problem': problem}
      continue
    line = fit.measure(config, name, target, cost, seconds=compile_seconds)
    needed = fit.peak(config, name, target.devices, cost, line)
    fits = needed <= target.memory
    rate = peak and target.devices * peak * USUAL
    found[name] = {
      'peak': needed,
      'source': line.source,
      'why': line.why,
      'largest': line.largest(target.memory) * target.devices,
      'fits': fits,
      'overrides': []
      if fits
      else fit.overrides(
        config,
        name,
        target,
        cost,
        line,
        functools.partial(rematerialised, name),
      ),
      'clips': rate and config.stages[name].batch / (1e12 * cost.tflop / rate),
    }
  total = sum(
    config.stages[name].steps * cost.tflop for name, cost in counted.items()
  )
  return {
    'devices': target.devices,
    'memory': target.memory,
    'stages': found,
    'hours': {
      f'{share:g}': 1e12 * total / (target.devices * peak * share) / 3600
      for share in SHARES
      if peak and not any('problem' in stage for stage in found.values())
    },
  }


def _kept_if_remat(config: ConfigDict, name: str) -> float:
  config = config.copy_and_resolve_references().unlock()
  config.model.remat = 'block'
  return costs.kept(config, name)


def _snapshots(config, counted):
  if not (config.train.snapshot_every or config.sample.autoguide):
    return {}
  parameters = {name: cost.parameters for name, cost in counted.items()}
  return {'snapshots of averages': disk.snapshots(config, parameters)}


def text(plan: dict[str, Any]) -> str:
  """Returns a plan as tables and sentences."""
  parts = [_stages(plan), _targets(plan), _times(plan)]
  sizes = ', '.join(
    f'{what} {_bytes(size) if size is not None else "(not built yet)"}'
    for what, size in plan['disk'].items()
  )
  parts.append(f'Disk: {sizes}.')
  parts += _advice(plan)
  return '\n\n'.join(parts)


def _stages(plan):
  rows = [
    ('stage', 'steps', 'batch', 'parameters', 'trained', 'state')
    + ('TFLOP a step', 'clips/s here')
  ]
  for name, stage in plan['stages'].items():
    rows.append(
      (
        name,
        f'{stage["steps"]:,}',
        str(stage['batch']),
        f'{stage["parameters"]:,}',
        f'{stage["trained"]:,}',
        _bytes(stage['state']),
        f'{stage["tflop"]:.3g}',
        f'{stage["pipeline"]:.0f}' if stage['pipeline'] else '-',
      )
    )
  return tables.lay_out(rows)


def _targets(plan):
  rows = [
    ('stage on target', 'peak', 'of', 'largest batch')
    + (f'clips/s at {USUAL:.0%}', 'memory is')
  ]
  for name, target in plan['targets'].items():
    for stage, found in target['stages'].items():
      if 'problem' in found:
        rows.append((f'{stage} on {name}', *'-----'))
        continue
      rows.append(
        (
          f'{stage} on {name}',
          _bytes(found['peak']) + ('' if found['fits'] else ' !'),
          _bytes(target['memory']),
          str(found['largest']),
          f'{found["clips"]:.0f}' if found['clips'] else '-',
          found['source'],
        )
      )
  return tables.lay_out(rows)


def _times(plan):
  rows = [('the whole run', *(f'at {share:.0%}' for share in SHARES))]
  for name, target in plan['targets'].items():
    hours = [target['hours'].get(f'{share:g}') for share in SHARES]
    rows.append(
      (
        f'{name}',
        *('-' if h is None else throughput.clock(3600 * h) for h in hours),
      )
    )
  return tables.lay_out(rows)


def _advice(plan):
  lines = []
  for name, target in plan['targets'].items():
    for stage, found in target['stages'].items():
      if 'problem' in found:
        lines.append(f'{stage} cannot run on {name}: {found["problem"]}')
        continue
      if found['why']:
        lines.append(f'{stage} on {name} is estimated: {found["why"]}.')
      if found['fits']:
        continue
      if found['overrides']:
        lines.append(
          f'{stage} fits {name} with {" ".join(found["overrides"])}.'
        )
      else:
        lines.append(
          f'{stage} does not fit {name} with any batch, rematerialised or '
          'sharded: use fewer frames, a lower resolution or a smaller network.'
        )
  return ['\n'.join(lines)] if lines else []


def _bytes(size: float) -> str:
  return (
    f'{size / GIB:.2f} GiB' if size >= GIB / 10 else f'{size / 2**20:.1f} MiB'
  )
