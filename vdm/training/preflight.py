"""What configuration and data set decide together, checked before a run starts.

A mistake in the last stage would otherwise show when the stages before it have
been trained. Nothing is compiled and no frame is read.
"""

from collections.abc import Callable, Mapping
import os

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm import trained
from vdm.common import buckets
from vdm.common import errors
from vdm.config import check as config_check
from vdm.config import image_model_rules
from vdm.data import builders
from vdm.data import latent_cache
from vdm.data import windowing
from vdm.models.image_unets import published
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import stages
from vdm.training import texts


def check_workdir(workdir: epath.PathLike) -> None:
  """Checks that a folder is there or can be made, and may be written to.

  Raises:
    UsageError: it is a file, lies under one, or may not be written to; or it
      is in a bucket that cannot be reached.
  """
  path = buckets.given(workdir, '--workdir')
  buckets.check_writable(path, '--workdir')
  if buckets.is_remote(path):
    return
  there = next(x for x in (path, *path.absolute().parents) if x.exists())
  if not there.is_dir():
    raise errors.UsageError(
      f'--workdir={workdir}: {there} is a file; name a folder.'
    )
  if not os.access(there, os.W_OK | os.X_OK):
    raise errors.UsageError(
      f'--workdir={workdir}: {there} may not be written to; name another '
      'folder.'
    )


def resolve_model(config: ConfigDict, begun: ConfigDict | None) -> ConfigDict:
  """Returns `config.model` with what a published image model brings along.

  Args:
    config: the run's.
    begun: what it has begun with, which has the model's description; None if
      it has not.

  Raises:
    UsageError: there is none, or it does not fit the run.
  """
  if not image_model_rules.is_published(config.model):
    return config.model
  known = ''
  if begun is not None and begun.model.kind == config.model.kind:
    known = begun.model.architecture
  config = config.copy_and_resolve_references()
  config.model = published.resolve(config.model, known)
  config_check.validate(config)
  published.check(config)
  return config.model


def check(
  config: ConfigDict,
  sources: Mapping[str, builders.ClipSource],
  mesh: jax.sharding.Mesh,
  poll: Callable[[], None],
) -> dict[str, objectives.Objective]:
  """Checks every stage against the data set, and returns their objectives.

  Args:
    config: the run's.
    sources: by split.
    mesh: see `sharding.make_mesh`.
    poll: see `objectives.make_objective`.

  Returns:
    {name of a stage: its objective}.

  Raises:
    UsageError: one sentence about the first problem.
  """
  for source in sources.values():
    check_labels(config.model.num_classes, source)
  texts.check(config, sources)
  with errors.as_usage():
    inputs.check_flip(config, sources['train'].info)
  # Clips to validate on are the training clips where those are fixed.
  splits = ('train',) if config.data.fixed_clips else ('train', 'validation')
  used = [sources[split] for split in splits]
  made = {}
  for span in stages.spans(config):
    with errors.as_usage(f'config.stages.{span.name}: '):
      spec = inputs.make_spec(config, span)
      windows = [windowing.find_windows(source, spec) for source in used]
      rate = float(used[0].info['frame_rate'])
      logging.info('Stage %s: %s.', span.name, windows[0].describe(rate))
      if config.data.latents and span.stage.objective != 'autoencoder':
        # Its autoencoder may be yet to be trained.
        plan = latent_cache.read_plan(config.data.latents)
        inputs.open_cache(config, used[0], span, plan['autoencoder'])
      objective = objectives.make_objective(config, span.stage, mesh, poll)
      if span.stage.frozen or span.stage.rates:
        check_frozen(span.stage, objective)
    made[span.name] = objective
  return made


def check_init_from(source: str) -> None:
  """Checks that `train.init_from` is a model whose average can be read.

  Raises:
    FileNotFoundError: there is no run, or no diffusion model in it.
    UsageError: it cannot be read.
  """
  with errors.as_usage('config.train.init_from: '):
    trained.load_trained(source, guided=False)


def check_labels(num_classes: int, source: builders.ClipSource) -> None:
  """Checks that the model knows every label of a data set.

  Raises:
    UsageError: there are more labels, or none for a model that takes labels.
  """
  labels, name = source.index['label'], source.info['name']
  if not num_classes:
    return
  largest = int(np.max(labels))
  if largest < 0:
    raise errors.UsageError(
      f'config.model.num_classes={num_classes}, but {name} has no labels: set '
      'config.model.num_classes=0.'
    )
  if largest >= num_classes:
    # The list of names may be longer than what this split has.
    classes = max(largest + 1, len(source.info.get('label_names', ())))
    raise errors.UsageError(
      f'config.model.num_classes={num_classes}, but {name} has {classes} '
      f'labels: set config.model.num_classes={classes}, or 0 for a model '
      'without labels.'
    )


def check_frozen(stage: ConfigDict, objective: objectives.Objective) -> None:
  """Checks that patterns of frozen parameters match some and not all.

  Raises:
    ValueError: they do not, or a pattern of `rates` matches none.
  """
  params = objective.abstract_params()
  alone = stage.frames == 1
  for single in {alone, alone or stage.image_fraction > 0}:
    stages.trained_paths(params, stage, objective.excluded_paths(single))
  stages.rates(params, stage)
