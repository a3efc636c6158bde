"""Dumps a step whose loss or gradient is not finite, and replays it.

The compiled step skips it (see `train_step`), so a rare one does no harm. If
more than `train.max_skipped` of the last 100 were skipped, the next one that
fails is dumped in `<workdir>/nonfinite/step_XXXXXXXX/` and the run stops. As a
skipped step changes nothing, the parameters after it are those it failed on.
The folder holds

  arrays.npz    the batch, levels and mask of every row, the key's data, the
                parameters, the loss of every row
  step.json     which clips, norms of every parameter and its gradient
  config.json   the run's

and `python -m vdm.replay --bundle FOLDER` computes that step again.
"""

import io
import json
import math
from typing import Any
import zipfile
import zlib

from etils import epath
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from vdm.common import buckets
from vdm.common import errors
from vdm.common import files
from vdm.common import trees
from vdm.config import schema
from vdm.config import serialize
from vdm.multihost import arrays
from vdm.multihost import coordination
from vdm.training import autoencoder_stage
from vdm.training import counters
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import packing
from vdm.training import sharding
from vdm.training import stage_steps
from vdm.training import teacher
from vdm.training import train_state
from vdm.training import train_step


class NonFiniteError(FloatingPointError):
  """Too many steps were skipped; the message names the dumped one."""


def examine(
  stage: ConfigDict,
  objective: objectives.Objective,
  trained: list[str],
  mesh: jax.sharding.Mesh,
  params: dict[str, Any],
  arguments: tuple[Any, ...],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Computes one step again, part by part; changes nothing.

  Args:
    stage: the stage's config.
    objective: see `objectives.Objective`.
    trained: paths of the parameters that the step trains.
    mesh: see `sharding.make_mesh`.
    params: nested dict of arrays.
    arguments: (frozen, batch, n, key) of the step.

  Returns:
    (report, values), on the host: report has `loss`, `grad_norm` and, for
    every trained parameter, [norm, norm of its gradient]; values has `row_loss`
    and what was drawn for every row.
  """

  layout = packing.plain(params, trained)

  @jax.jit
  def parts(params, frozen, batch, n, key):
    flat = trees.flatten(params)
    grads, total, count, _ = train_step.gradient(
      stage,
      objective,
      layout,
      0,
      mesh,
      packing.join(layout, flat),
      frozen,
      batch,
      n,
      key,
    )
    norm = optax.global_norm(grads)
    (grads,) = grads.values()
    rows = objective.draw(batch, jax.random.fold_in(key, n), n)

    def row_loss(row):
      total, count, _ = objective.loss(
        params, frozen, jax.tree.map(lambda x: x[None], row)
      )
      return total / count

    norms = {
      path: jnp.stack([optax.global_norm(x) for x in (flat[path], grad)])
      for path, grad in grads.items()
    }
    drawn = {k: v for k, v in rows.items() if k not in (*batch, 'key')}
    drawn['row_loss'] = jax.lax.map(row_loss, rows)
    return total / count, norm, norms, drawn

  loss, norm, norms, drawn = arrays.to_host(parts(params, *arguments))
  report = {
    'loss': _plain(loss),
    'grad_norm': _plain(norm),
    'parameters': {k: [_plain(x) for x in v] for k, v in norms.items()},
  }
  return report, drawn


def dump(
  config: ConfigDict,
  source: Any,
  steps: stage_steps.StageSteps,
  state: train_state.TrainState,
  batch: dict[str, np.ndarray],
  step: int,
  workdir: epath.Path,
) -> NonFiniteError:
  """Writes the bundle of a step that was skipped.

  Args:
    config: the run's.
    source: `builders.ClipSource` of the training split.
    steps: of the stage.
    state: before the step, or after it.
    batch: this process's rows of it.
    step: global step after it.
    workdir: the run's folder.

  Returns:
    The error to raise.
  """
  span, n = steps.span, step - steps.span.start - 1
  single, arguments = steps.arguments(batch, n)
  report, drawn = examine(
    span.stage,
    steps.objective,
    steps.trained[single],
    steps.mesh,
    state.params,
    arguments,
  )
  params = arrays.to_host(trees.flatten(state.params))
  rows = arrays.to_host(arguments[1])
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
        'key': np.asarray(jax.random.key_data(steps.key)),
      },
    )
  # What is raised next ends the others, and they this one.
  coordination.gather('writing the step that was skipped')
  bad = np.flatnonzero(~np.isfinite(drawn['row_loss']))
  return NonFiniteError(
    f'Step {step} is one of more than {config.train.max_skipped} of the last '
    f'{counters.WINDOW} whose gradient is not finite (loss {report["loss"]}, '
    f'rows {bad.tolist()} of the batch); lower '
    f'stages.{span.name}.learning_rate or train in float32 '
    '(train.compute_dtype). Replay it with: '
    f'python -m vdm.replay --bundle {folder}'
  )


def write(
  folder: epath.PathLike,
  config: ConfigDict,
  report: dict[str, Any],
  values: dict[str, np.ndarray],
) -> None:
  """Writes a bundle; step.json comes last."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  serialize.save(config, folder / 'config.json')
  files.write_npz(folder / 'arrays.npz', values)
  files.write_json(folder / 'step.json', report, allow_nan=False)


def read(
  folder: epath.PathLike,
) -> tuple[ConfigDict, dict[str, Any], dict[str, np.ndarray]]:
  """Returns (config, report, values) of a bundle.

  Raises:
    FileNotFoundError: there is none.
    UsageError: it is damaged.
  """
  folder = buckets.given(folder, '--bundle')
  if not (folder / 'step.json').exists():
    raise FileNotFoundError(
      f'{folder} holds no step: name a folder under <workdir>/nonfinite.'
    )
  data = io.BytesIO((folder / 'arrays.npz').read_bytes())
  try:
    with np.load(data, allow_pickle=False) as loaded:
      values = dict(loaded)
    report = json.loads((folder / 'step.json').read_text())
  # Whatever else than an .npz and JSON there is.
  except (
    ValueError,
    TypeError,
    EOFError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise errors.UsageError(
      f'{folder} is damaged ({error}): name another step.'
    ) from error
  config = schema.complete(serialize.load(folder / 'config.json'))
  return config, report, values


def replay(
  folder: epath.PathLike,
  config: ConfigDict,
  report: dict[str, Any],
  values: dict[str, np.ndarray],
  float32: bool = False,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Computes the step of a bundle again, on devices that divide its batch.

  Args:
    folder: of the bundle, inside of the run's.
    config: from `read`, like `report` and `values`.
    report: of the run.
    values: of the run.
    float32: compute in float32 instead of as the run did.

  Returns:
    (report, rows): what `examine` finds now.
  """
  if float32:
    config.train.compute_dtype = 'float32'
  groups = {'batch': {}, 'params': {}}
  for name, value in values.items():
    group, _, rest = name.partition('/')
    groups.setdefault(group, {})[rest] = value
  stage, batch = config.stages[report['stage']], groups['batch']
  num = math.gcd(len(batch['label']) // stage.accumulate, jax.device_count())
  mesh = sharding.make_mesh(devices=jax.devices()[:num])
  objective = objectives.make_objective(config, stage, mesh)
  frozen = {}
  if stage.objective != 'autoencoder':
    folder = epath.Path(folder)
    if not buckets.is_remote(folder):
      folder = folder.resolve()  # It may be '.'.
    workdir = folder.parent.parent
    frozen, _ = autoencoder_stage.load(workdir / 'autoencoder', mesh)
    if stage.objective == 'consistency':
      frozen['teacher'] = teacher.load(workdir, objective, mesh)
  key = jax.random.wrap_key_data(jnp.asarray(values['key']))
  n, key = arrays.replicate(mesh, (np.int32(report['n']), key))
  return examine(
    stage,
    objective,
    sorted(report['parameters']),
    mesh,
    arrays.replicate(mesh, trees.unflatten(groups['params'])),
    (frozen, arrays.to_global(mesh, batch), n, key),
  )


def compare(
  recorded: dict[str, Any], found: dict[str, Any], rows: dict[str, np.ndarray]
) -> tuple[list[str], bool]:
  """Compares a replay with the run.

  Args:
    recorded: report of the bundle.
    found: report of the replay.
    rows: values of the replay.

  Returns:
    (lines for a person, whether the replay is non-finite as the run was).
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
  if isinstance(found['loss'], float) and not _not_finite(found, 1):
    return [*lines, 'It is finite here.'], False
  same = all(
    _not_finite(found, i) == _not_finite(recorded, i) for i in (0, 1)
  ) and all(
    _same(found[name], recorded[name]) for name in ('loss', 'grad_norm')
  )
  verdict = (
    'The same non-finite step as in the run.'
    if same
    else 'Not finite here either, but not in the same way as in the run.'
  )
  return [*lines, verdict], same


def _not_finite(report, index):
  return [
    path
    for path, pair in sorted(report['parameters'].items())
    if isinstance(pair[index], str)
  ]


def _same(value, other):
  """Returns whether values are equal, counting words for non-finite ones."""
  if isinstance(value, str) or isinstance(other, str):
    return value == other
  # Other devices may sum in another order.
  return math.isclose(value, other, rel_tol=1e-3)


def _plain(value):
  """Returns a number as JSON can represent it."""
  value = float(value)
  return value if math.isfinite(value) else str(value)
