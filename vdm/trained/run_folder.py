"""Reads a trained model from a run's folder, which training may still write."""

from etils import epath
from ml_collections import ConfigDict

from vdm.checkpoints import manager
from vdm.common import trees
from vdm.config import schema
from vdm.config import serialize
from vdm.models.autoencoders import files
from vdm.trained import model


def read(
  workdir: epath.PathLike, ema: float | None = None, checkpoint: str = 'latest'
) -> model.Model:
  """Reads what sampling needs from a run's folder, and nothing else.

  Args:
    workdir: of the run.
    ema: width of the average to take; by default `config.sample.ema`.
    checkpoint: 'latest'; 'best', the one with the lowest small score; or a
      step.

  Raises:
    FileNotFoundError: there is no run, no diffusion model in it yet, or no
      such checkpoint.
    ValueError: the run keeps no such average.
  """
  workdir = epath.Path(workdir)
  config = read_config(workdir)
  with manager.Checkpoints(workdir / 'checkpoints', read_only=True) as store:
    found = store.restore_item('ema', step=choose_step(store, checkpoint))
  if found is None or 'autoencoder' == found[2]['objective']:
    raise FileNotFoundError(
      f'{workdir} has no diffusion model yet: train it further first.'
    )
  step, averages, meta = found
  width = config.sample.ema if ema is None else ema
  name = f'{width:.3f}'
  if name not in averages:
    raise ValueError(
      f'The run keeps averages of width {", ".join(averages)}, not {name}.'
    )
  config.sample.ema = width
  _, params, stats, fingerprint = files.load(workdir / 'autoencoder')
  return model.Model(
    config=config,
    stage=config.stages[meta['stage']],
    step=step,
    params=trees.unflatten(averages[name]),
    frozen={'params': params, 'stats': stats},
    label_names=serialize.load_label_names(workdir / 'config.json'),
    frame_rate=config.data.frame_rate / config.data.stride,
    fingerprint=fingerprint,
    source=str(workdir),
    workdir=workdir,
  )


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


def choose_step(store: manager.Checkpoints, checkpoint: str) -> int | None:
  """Returns the step that 'latest' (None), 'best' or a number names.

  Raises:
    FileNotFoundError: the run does not keep it.
    ValueError: it names nothing.
  """
  if checkpoint == 'latest':
    return None
  if checkpoint == 'best':
    if (step := store.best()) is None:
      raise FileNotFoundError(
        f'No checkpoint in {store.directory} has a score: take the latest, or '
        'train with config.score.best set to the measure to choose by, such '
        'as motion (it is none by default), and config.score.every above 0.'
      )
    return step
  if not str(checkpoint).isdigit():
    raise ValueError(
      f'{checkpoint!r} names no checkpoint: latest, best or a step.'
    )
  if int(checkpoint) not in store.steps():
    raise FileNotFoundError(
      f'{store.directory} keeps the steps '
      f'{", ".join(map(str, store.steps()))}, not {checkpoint}.'
    )
  return int(checkpoint)
