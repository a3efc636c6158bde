"""What a sweep will take: steps and disk, before anything runs."""

from collections.abc import Collection
import math
import shlex

import jax

from vdm.common import sizes
from vdm.common import tables
from vdm.planning import costs
from vdm.planning import disk
from vdm.reporting import run_record
from vdm.sweeping import ladder
from vdm.sweeping import plan as plans
from vdm.training import objectives
from vdm.training import sharding
from vdm.training import stages
from vdm.training import train_state


def text(plan: plans.Plan, stopped: Collection[str] = ()) -> str:
  """Returns the commands of a sweep, and what it costs, as text.

  Args:
    plan: of the sweep.
    stopped: values that are not trained to the end, see `halving`.
  """
  items = [*filter(None, [plan.shared]), *plan.runs]
  lines = []
  for item in items:
    state = 'stopped' if ladder.value_of(item) in stopped else 'to run'
    state = 'finished' if plans.is_done(item) else state
    words = shlex.join(['python', '-m', 'vdm.main', *item.arguments])
    lines.append(f'# {item.title}: {state}\n{words}')
  if plan.latents:
    state = 'finished' if plans.latents_are_there(plan) else 'to run'
    words = shlex.join(['python', '-m', 'vdm.prepare', *plan.latents])
    lines.insert(int(plan.shared is not None), f'# latents: {state}\n{words}')
  rows = [('', 'steps', 'of them done', 'disk, at most')]
  total, done, size = 0, 0, 0
  known = {}
  for item in items:
    steps = stages.spans(item.config)[-1].stop
    reached = _reached(item)
    # Seeds change no size.
    key = item.title.rpartition(', seed')[0]
    if key not in known:
      known[key] = disk_of(item)
    rows.append((item.title, f'{steps:,}', f'{reached:,}', _gib(known[key])))
    total, done, size = total + steps, done + reached, size + known[key]
  rows.append((f'{len(items)} runs', f'{total:,}', f'{done:,}', _gib(size)))
  table = tables.lay_out(rows)
  notes = [
    'Disk: checkpoints, snapshots of averages and the arrays of the final '
    'videos; logs, previews and data sets come on top.',
    *plan.notes,
  ]
  return '\n'.join([*lines, '', table, '', *notes]) + '\n'


def disk_of(item: plans.Run) -> int:
  """Returns the bytes of a run's checkpoints, snapshots and final videos.

  There are no more, and may be fewer.
  """
  config, mesh = item.config, sharding.make_mesh(devices=jax.devices()[:1])
  state, parameters = 0, {}
  for span in stages.spans(config):
    objective = objectives.make_objective(config, span.stage, mesh)
    abstract = train_state.abstract(config.optim, objective, mesh)
    state = max(state, costs.size(abstract))
    leaves = jax.tree.leaves(abstract.params)
    parameters[span.name] = sum(x.size for x in leaves)
  last = stages.spans(config)[-1].stage
  videos = 0
  if last.objective != 'autoencoder':
    pixels = math.prod(sizes.of(last))
    videos = config.sample.final * last.frames * 3 * pixels
  kept = disk.checkpoints(config, state, max(parameters.values()))
  return kept + disk.snapshots(config, parameters) + videos


def _reached(item: plans.Run) -> int:
  return run_record.read(item.folder).step if _begun(item) else 0


def _begun(item: plans.Run) -> bool:
  return run_record.is_run(item.folder)


def _gib(size: int) -> str:
  return f'{size / 2**30:.2f} GiB'
