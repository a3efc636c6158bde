"""Reads a trained model from a run's folder, which training may still write."""

import json
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vdm import models
from vdm.checkpoints import manager
from vdm.common import errors
from vdm.common import trees
from vdm.config import image_model_rules
from vdm.config import sampling
from vdm.config import schema
from vdm.config import serialize
from vdm.models import autoencoders
from vdm.models import import_weights
from vdm.models.autoencoders import files
from vdm.multihost import coordination
from vdm.trained import model
from vdm.trained import snapshots
from vdm.trained import words

CHOSEN = 'average.json'  # The width that makes the run's videos from now on.
STATES = 'checkpoints'  # Whole states of the training.
BEST = 'best'  # What sampling needs of the step with the lowest small score.


def begun(workdir: epath.Path) -> ConfigDict | None:
  """Returns the configuration that a run has begun with.

  All processes call it, and the first one decides: a late one could see what
  the first has just written.

  Returns:
    None before the first checkpoint: until then anything may change.
  """
  path = workdir / 'config.json'
  states = manager.Checkpoints(workdir / STATES, read_only=True)
  there = path.exists() and bool(states.steps())
  if not coordination.first_says('whether the run has begun', there):
    return None
  return schema.complete(serialize.load(path))


def read(
  workdir: epath.PathLike,
  ema: float | None = None,
  checkpoint: str = 'latest',
  guided: bool = True,
) -> model.Model:
  """Reads what sampling needs from a run's folder, and nothing else.

  Args:
    workdir: of the run.
    ema: width of the average to take; by default the run's. One that it does
      not keep is made of its snapshots.
    checkpoint: 'latest'; 'best', the one with the lowest small score; or a
      step, also one of which there is a snapshot alone.
    guided: with the average that it is guided against, if it has one.

  Raises:
    FileNotFoundError: there is no run, no diffusion model in it yet, no such
      checkpoint, or not what it is guided against.
    UsageError: its checkpoints are corrupt, or of another version's network.
    ValueError: the run keeps no such average, and no snapshots.
  """
  workdir = epath.Path(workdir)
  config = read_config(workdir)
  try:
    found, constant = _averages(workdir, config, checkpoint)
  except manager.CheckpointError as error:
    raise errors.UsageError(str(error)) from error
  if found is None or found[2]['objective'] == 'autoencoder':
    raise FileNotFoundError(
      f'{workdir} has no diffusion model yet: train it further first.'
    )
  step, averages, meta = found
  width = default_width(workdir, config) if ema is None else ema
  name = f'{width:.3f}'
  average = averages.get(name)
  if average is None:
    kept = snapshots.steps(workdir) if config.train.snapshot_every else []
    if meta['objective'] == 'consistency' or (averages and not kept):
      raise ValueError(
        f'The run keeps averages of width {", ".join(averages)}, not {name}, '
        'and no snapshots to make others of (train.snapshot_every).'
      )
    average = snapshots.reconstruct(workdir, width, step)
  stage = config.stages[meta['stage']]
  config = sampling.of_stage(config, stage)
  earlier = sampling.earlier_step(config, meta['stage'])
  if not guided:
    config = sampling.without_autoguide(config)
  elif step <= earlier:
    config = sampling.by_conditions(config)
  config.sample.ema = width
  params = _fitting(config, {**constant, **average}, f'{workdir}: step {step}')
  _, codec, stats, fingerprint = files.load(workdir / 'autoencoder')
  found = model.Model(
    config=config,
    stage=stage,
    step=step,
    params=params,
    frozen={'params': codec, 'stats': stats},
    label_names=serialize.load_label_names(workdir / 'config.json'),
    frame_rate=config.data.frame_rate / config.data.stride,
    fingerprint=fingerprint,
    source=str(workdir),
    workdir=workdir,
    reader=words.make(config.model.text, words.in_run(workdir)),
  )
  if not config.sample.autoguide:
    return found
  average = snapshots.average_of(workdir, width, earlier)
  source = f'{workdir}: step {earlier}'
  params = _fitting(config, {**constant, **average}, source)
  return found._replace(worse=found._replace(step=earlier, params=params))


def _averages(workdir, config, checkpoint):
  """Returns (step, averages by width, meta) or None, and what is constant.

  The latter is {path: array} of parameters that no stage trains. Of a snapshot
  there are no averages by width: it has any.
  """
  folder, step = choose_step(workdir, checkpoint)
  found = None
  if folder == workdir / snapshots.FOLDER:
    found = step, {}, snapshots.read_meta(workdir, step)
    folder, step = workdir / STATES, None
  with manager.Checkpoints(folder, read_only=True) as store:
    found = found or store.restore_item('ema', step=step)
    if not image_model_rules.constant_patterns(config) or found is None:
      return found, {}
    _, params, _ = store.restore_item('params', step=step)
  return found, image_model_rules.constant(config, trees.flatten(params))


def _fitting(config, flat, source):
  """Returns the parameters as a nested dict, if they are of this network."""
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = models.make_network(config.model, codec.channels, codec.levels)
  try:
    import_weights.match(source, flat, network.abstract_params())
  except import_weights.WeightsError as error:
    raise errors.UsageError(
      f'{error} Another version of vdm has trained it: sample it with that one.'
    ) from error
  return trees.unflatten(flat)  # A frozen image model stays in bfloat16.


def default_width(workdir: epath.Path, config: ConfigDict) -> float:
  """Returns the width of the run's average: what `vdm.averages` kept, or its.

  Raises:
    UsageError: the file that says what was kept is damaged.
  """
  path = workdir / CHOSEN
  if not path.exists():
    return config.sample.ema
  try:
    return float(json.loads(path.read_text())['width'])
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UsageError(
      f'{path} is damaged: delete it, or choose again by vdm.averages --keep.'
    ) from error


def read_config(workdir: epath.Path) -> ConfigDict:
  """Returns the configuration of a run, with the keys that are newer than it.

  Raises:
    FileNotFoundError: there is no run.
    UsageError: its config.json is not one.
  """
  if not (workdir / 'config.json').exists():
    raise FileNotFoundError(
      f'{workdir} holds no run: give the folder that training printed.'
    )
  return schema.complete(serialize.load(workdir / 'config.json'))


def choose_step(
  workdir: epath.Path, checkpoint: str
) -> tuple[epath.Path, int | None]:
  """Returns the folder and step that 'latest', 'best' or a number names.

  A number names a whole state rather than the best step, and either rather than
  a snapshot.

  Raises:
    FileNotFoundError: the run does not keep it.
    ValueError: it names nothing.
  """
  folders = (workdir / STATES, workdir / BEST)
  if checkpoint == 'latest':
    return folders[0], None
  if checkpoint == 'best':
    with manager.Checkpoints(folders[1], read_only=True) as store:
      if (step := store.best()) is not None:
        return folders[1], step
    raise FileNotFoundError(
      f'{workdir} has no checkpoint that was chosen by a score: take the '
      'latest, or train with config.score.best set to the measure to choose '
      'by, such as motion (it is none by default), and config.score.every '
      'above 0.'
    )
  if not str(checkpoint).isdigit():
    raise ValueError(
      f'{checkpoint!r} names no checkpoint: latest, best or a step.'
    )
  kept = dict.fromkeys(snapshots.steps(workdir), workdir / snapshots.FOLDER)
  for folder in reversed(folders):
    with manager.Checkpoints(folder, read_only=True) as store:
      kept |= dict.fromkeys(store.steps(), folder)
  if int(checkpoint) not in kept:
    raise FileNotFoundError(
      f'{workdir} keeps the steps {", ".join(map(str, sorted(kept)))}, '
      f'not {checkpoint}.'
    )
  return kept[int(checkpoint)], int(checkpoint)


def read_meta(workdir: epath.PathLike, step: int) -> dict[str, Any]:
  """Returns what was saved beside the arrays of a step.

  Raises:
    FileNotFoundError: the run does not keep it.
    CheckpointError: it is corrupt.
  """
  workdir = epath.Path(workdir)
  folder, _ = choose_step(workdir, str(step))
  if folder == workdir / snapshots.FOLDER:
    return snapshots.read_meta(workdir, step)
  with manager.Checkpoints(folder, read_only=True) as store:
    return store.read_meta(step)
