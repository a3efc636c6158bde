"""Steps whose loss or gradient is not finite: counted, and one taken down.

The compiled step leaves the state as it was (see `step`), so a rare one does
no harm. More than `train.max_skipped` of the last 100 do: then the next step
that fails is taken down in `<workdir>/nonfinite/step_XXXXXXXX/` and the run
stops. As a skipped step changes nothing, the parameters after it are those it
failed on. The folder holds

  arrays.npz    the batch, levels and mask of every row, the key's data, the
                parameters, the loss of every row
  step.json     which clips, norms of every parameter and its gradient
  config.json   the run's

and `python -m vdm.replay --bundle FOLDER` does that step again.
"""

import collections
import json
import math

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from vdm.config import serialize
from vdm.models.autoencoders import files
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import optim
from vdm.training import sharding
from vdm.training import train_step

WINDOW = 100  # Steps that the limit is for.


class NonFiniteError(FloatingPointError):
  """Too many steps were skipped; the message names the folder to look at."""


class Skips:
  """Counts skipped steps without waiting for the device at every one.

  Attributes:
    total: of the run so far.
  """

  def __init__(self, limit):
    """Begins; `limit`: of the last `WINDOW` steps, more are too many."""
    self.limit, self.total = limit, 0
    self._recent = collections.deque(maxlen=WINDOW)
    self._pending = collections.deque()

  def add(self, step, flag):
    """Notes a step.

    Returns:
      Whether it was skipped and there are too many: only then is the step
      waited for. The same on all processes.
    """
    watched = sum(self._recent) > self.limit
    self._pending.append((step, flag))
    if not watched:
      return False
    self.count(step)
    return bool(self._recent[-1]) and sum(self._recent) > self.limit

  def count(self, step):
    """The run's skipped steps up to `step`, which is waited for."""
    due = []
    while self._pending and self._pending[0][0] <= step:
      due.append(self._pending.popleft()[1])
    flags = [int(x) for x in arrays.to_host(due)]
    self._recent.extend(flags)
    self.total += sum(flags)
    return self.total


def examine(stage, objective, trained, mesh, params, arguments):
  """Does one step again and looks at its parts; changes nothing.

  Args:
    stage: the stage's config.
    objective: see `objectives.Objective`.
    trained: paths of the parameters that the step trains.
    mesh: see `sharding.make_mesh`.
    params: nested dict of arrays.
    arguments: (frozen, batch, n, key) of the step.

  Returns:
    (report, arrays), of host values: report has `loss`, `grad_norm` and, for
    every trained parameter, [norm, norm of its gradient]; arrays has `row_loss`
    and what was drawn for every row.
  """

  @jax.jit
  def look(params, frozen, batch, n, key):
    grads, total, count, _ = train_step.gradient(
      stage, objective, trained, mesh, params, frozen, batch, n, key
    )
    rows = objective.draw(batch, jax.random.fold_in(key, n))

    def row_loss(row):
      total, count, _ = objective.loss(
        params, frozen, jax.tree.map(lambda x: x[None], row)
      )
      return total / count

    flat = optim.flatten(params)
    norms = {
      path: jnp.stack([train_step.global_norm(x) for x in (flat[path], grad)])
      for path, grad in grads.items()
    }
    drawn = {k: v for k, v in rows.items() if k not in (*batch, 'key')}
    drawn['row_loss'] = jax.lax.map(row_loss, rows)
    return total / count, train_step.global_norm(grads), norms, drawn

  loss, norm, norms, drawn = arrays.to_host(look(params, *arguments))
  report = {
    'loss': _plain(loss),
    'grad_norm': _plain(norm),
    'parameters': {k: [_plain(x) for x in v] for k, v in norms.items()},
  }
  return report, drawn


def take_down(config, source, span, steps, state, batch, n, workdir):
  """Writes the bundle of a step that was skipped.

  Args:
    config: the run's.
    source: `builders.ClipSource` of the training split.
    span: the stage.
    steps: its `stage_steps.StageSteps`.
    state: before the step, or after it.
    batch: this host's rows of it.
    n: which step of the stage, from 0.
    workdir: the run's folder.

  Returns:
    The error to raise.
  """
  single, arguments = steps.arguments(batch, n)
  report, drawn = examine(
    span.stage,
    steps.objective,
    steps.trained[single],
    steps.mesh,
    state.params,
    arguments,
  )
  params = arrays.to_host(optim.flatten(state.params))
  rows = arrays.to_host(arguments[1])
  step = span.start + n + 1
  folder = workdir / 'nonfinite' / f'step_{step:08d}'
  if coordination.is_first():
    write(
      folder,
      config,
      {
        'step': step,
        'stage': span.name,
        'n': n,
        'single_frames': single,
        'clips': inputs.name_clips(config, source, span, n),
        **report,
      },
      {
        **{f'batch/{k}': v for k, v in rows.items()},
        **{f'rows/{k}': v for k, v in drawn.items()},
        **{f'params/{k}': v for k, v in params.items()},
        'key': np.asarray(jax.random.key_data(steps.host_key)),
      },
    )
  bad = np.flatnonzero(~np.isfinite(drawn['row_loss']))
  return NonFiniteError(
    f'Step {step} is one of more than {config.train.max_skipped} of the last '
    f'{WINDOW} whose gradient is not finite (loss {report["loss"]}, rows '
    f'{bad.tolist()} of the batch); lower stages.{span.name}.learning_rate or '
    'train in float32 (train.compute_dtype). Look at it with: python -m '
    f'vdm.replay --bundle {folder}'
  )


def write(folder, config, report, arrays):
  """Writes a bundle; step.json comes last."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  serialize.save(config, folder / 'config.json')
  with (folder / 'arrays.npz').open('wb') as file:
    np.savez(file, **arrays)
  text = json.dumps(report, indent=2, allow_nan=False)
  (folder / 'step.json').write_text(text + '\n')


def read(folder):
  """(config, report, arrays) of a bundle.

  Raises:
    FileNotFoundError: there is none.
  """
  folder = epath.Path(folder)
  if not (folder / 'step.json').exists():
    raise FileNotFoundError(
      f'{folder} holds no step: name a folder under <workdir>/nonfinite.'
    )
  with (
    (folder / 'arrays.npz').open('rb') as file,
    np.load(file, allow_pickle=False) as loaded,
  ):
    arrays = dict(loaded)
  report = json.loads((folder / 'step.json').read_text())
  return serialize.load(folder / 'config.json'), report, arrays


def replay(folder, config, report, arrays, float32=False):
  """Does the step of a bundle again, on the devices that divide its batch.

  Args:
    folder: of the bundle, inside of the run's.
    config: from `read`, as the others.
    report: the recorded one.
    arrays: the recorded ones.
    float32: compute in float32 instead of as the run did.

  Returns:
    (report, rows): what `examine` finds now.
  """
  if float32:
    config.train.compute_dtype = 'float32'
  groups = {'batch': {}, 'params': {}}
  for name, value in arrays.items():
    group, _, rest = name.partition('/')
    groups.setdefault(group, {})[rest] = value
  stage, batch = config.stages[report['stage']], groups['batch']
  num = math.gcd(len(batch['label']) // stage.accumulate, jax.device_count())
  mesh = sharding.make_mesh(devices=jax.devices()[:num])
  objective = objectives.make_objective(config, stage, mesh)
  frozen = {}
  if stage.objective != 'autoencoder':
    directory = epath.Path(folder).resolve().parent.parent / 'autoencoder'
    _, params, stats, _ = files.load(directory)
    frozen = {'params': params, 'stats': stats}
  key = jax.random.wrap_key_data(jnp.asarray(arrays['key']))
  n = np.int32(report['n'])
  frozen, n, key = arrays.copies(mesh, (frozen, n, key))
  return examine(
    stage,
    objective,
    sorted(report['parameters']),
    mesh,
    arrays.copies(mesh, files.nested(groups['params'])),
    (frozen, arrays.to_global(mesh, batch), n, key),
  )


def compare(recorded, found, rows):
  """What a replay shows, for a person.

  Args:
    recorded: report of the bundle.
    found: report of the replay.
    rows: arrays of the replay.

  Returns:
    (lines, same): whether the replay is not finite just as the run was.
  """
  lines = [
    f'Step {recorded["step"]}, stage {recorded["stage"]}.',
    *(
      f'{name}: {found[name]} (the run: {recorded[name]})'
      for name in ('loss', 'grad_norm')
    ),
  ]
  each = 1
  if recorded['single_frames']:
    each = len(rows['row_loss']) // len(recorded['clips'])
  for row in np.flatnonzero(~np.isfinite(rows['row_loss'])):
    clip = recorded['clips'][row // each]
    lines.append(
      f'row {row}: loss {rows["row_loss"][row]}, clip {clip["id"]} from frame '
      f'{clip["start"]}'
    )
  for index, what in enumerate(('value', 'gradient')):
    bad = _not_finite(found, index)
    lines.append(
      f'{len(bad)} of {len(found["parameters"])} parameters whose {what} is '
      f'not finite{": " if bad else "."}{", ".join(bad[:8])}'
      + (', ...' if len(bad) > 8 else '')
    )
  same = all(
    _not_finite(found, i) == _not_finite(recorded, i) for i in (0, 1)
  ) and all(
    _same(found[name], recorded[name]) for name in ('loss', 'grad_norm')
  )
  finite = isinstance(found['loss'], float) and not _not_finite(found, 1)
  lines.append(
    'It is finite here.'
    if finite
    else 'The same non-finite step as in the run.'
    if same
    else 'Not finite here either, but not in the same way as in the run.'
  )
  return lines, same and not finite


def _not_finite(report, index):
  return [
    path
    for path, pair in sorted(report['parameters'].items())
    if isinstance(pair[index], str)
  ]


def _same(value, other):
  """Equal: the words that stand for what is not finite, too."""
  if isinstance(value, str) or isinstance(other, str):
    return value == other
  # Devices may add up in another order.
  return math.isclose(value, other, rel_tol=1e-3)


def _plain(value):
  """A number as JSON can hold it."""
  value = float(value)
  return value if math.isfinite(value) else str(value)
