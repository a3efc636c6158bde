"""Whether a run may resume with a configuration, and from which checkpoint.

Besides the state, only the step is restored: data and randomness are functions
of it. A resumed run may change those values of its configuration that neither
its past steps nor the meaning of its state depend on.
"""

from collections.abc import Mapping
import re
from typing import Any

from absl import logging
from etils import epath
import jax
from ml_collections import ConfigDict

from vdm.checkpoints import manager
from vdm.common import errors
from vdm.config import serialize
from vdm.multihost import coordination
from vdm.trained import run_folder
from vdm.training import objectives
from vdm.training import stages
from vdm.training import train_state

# May change at any time: cadences, logging, previews, where files are read.
FREE = (
  r'^(sample|score|log)\.',
  r'^consistency\.steps$',  # Of its sampler.
  r'^train\.(log_every|eval_every|eval_clips|preview_every|keep|keep_every)$',
  r'^train\.(save_every|save_minutes|tensorboard|fsdp|max_skipped)$',
  r'^train\.(peer_seconds|barrier_minutes)$',
  r'^data\.(root|source|follow_links|latents|texts|max_bad_records)$',
  r'^data\.(threads|workers)$',
  r'^(autoencoder|model)\.weights$',  # They are in the workdir by then.
  r'^model\.remat$|^stages\.\w+\.accumulate$',  # Change memory alone.
  r'^model\.motion_range$',  # Says what samples may ask for.
)


class ResumeError(errors.UsageError):
  """The run in the folder is not the one that was asked for."""


def check(
  config: ConfigDict, workdir: epath.Path, stage: str, accept: bool = False
) -> None:
  """Checks that a run may resume with a configuration; writes nothing.

  Args:
    config: the run's, as given now.
    workdir: its folder.
    stage: of the newest checkpoint.
    accept: resume whatever differs; the differences are logged.

  Raises:
    ResumeError: the configuration differs where it may not.
  """
  old = run_folder.begun(workdir)
  if old is None:
    return
  lines = serialize.diff(old, config)
  refused = [
    line
    for line in lines
    if not may_change(line.split(':')[0], old, config, stage)
  ]
  if refused and not accept:
    raise ResumeError(
      f'{workdir}/config.json was written with another configuration ('
      + '; '.join(refused)
      + '): restore those values, give another --workdir, or pass '
      '--accept_changes.'
    )
  for line in lines:
    logging.info('Changed on resume: %s', line)


def claim(
  config: ConfigDict, workdir: epath.Path, label_names: list[str]
) -> None:
  """Writes `config.json`, once nothing refuses to resume any more.

  Args:
    config: the run's, as given now.
    workdir: its folder.
    label_names: of the data set's classes.
  """
  if coordination.is_first():
    serialize.save(config, workdir / 'config.json', label_names)
  coordination.gather('writing config.json')


def may_change(key: str, old: ConfigDict, new: ConfigDict, stage: str) -> bool:
  """Returns whether a run in `stage` may resume with another value of `key`."""
  order = list(old.train.order)
  if stage not in order:  # Its configuration was written by other hands.
    return False
  started = order[: order.index(stage) + 1]
  if key == 'train.order':
    return list(new.train.order)[: len(started)] == started
  if any(re.search(pattern, key) for pattern in FREE):
    return True
  match = re.match(r'stages\.(\w+)\.', key)
  if not match:
    return False
  if match[1] not in started:
    return True
  return match[1] == stage and key.endswith('.steps')


def span_of(config: ConfigDict, step: int, name: str) -> stages.Span:
  """Returns the stage that a checkpoint names.

  Raises:
    ResumeError: the stage's steps no longer include the checkpoint's.
  """
  for span in stages.spans(config):
    if span.name == name:
      if not span.start < step <= span.stop:
        raise ResumeError(
          f'The checkpoint is at step {step}, but stage {name} now covers '
          f'{span.start} to {span.stop}: give it at least '
          f'{step - span.start} steps.'
        )
      return span
  raise ResumeError(
    f'The checkpoint is in stage {name!r}, which train.order no longer names.'
  )


def check_data(trained_on: str, now: str, accept: bool = False) -> None:
  """Refuses to resume on another data set than the run's, or logs it.

  Raises:
    ResumeError: the fingerprints differ.
  """
  if trained_on == now:
    return
  differs = (
    f'The run was trained on data set {trained_on[:12]} and is now given '
    f'{now[:12]}'
  )
  if not accept:
    raise ResumeError(
      f'{differs}: restore that data, give another --workdir, or pass '
      '--accept_changes.'
    )
  logging.warning('%s.', differs)


def restore(
  config: ConfigDict,
  made: Mapping[str, objectives.Objective],
  store: manager.Checkpoints,
  mesh: jax.sharding.Mesh,
  fingerprint: str,
  accept: bool = False,
) -> tuple[
  int, stages.Span | None, train_state.TrainState | None, dict[str, Any]
]:
  """Restores the newest valid checkpoint of a run.

  Args:
    config: the run's.
    made: objectives by the name of the stage.
    store: its checkpoints.
    mesh: to shard the state over, whatever mesh it was saved from.
    fingerprint: of the training data, which must be the run's,
    accept: unless this is true.

  Returns:
    (step, span, state, meta), or (0, None, None, {}) if there is no checkpoint.

  Raises:
    ResumeError: the run is on other data, or its stage is gone or shorter.
    CheckpointError: there are checkpoints, and all are corrupt.
  """
  while (step := store.latest()) is not None:
    meta = store.read_meta(step)
    check_data(meta['dataset'], fingerprint, accept)
    span = span_of(config, step, meta['stage'])
    abstract = train_state.abstract(config.optim, made[span.name], mesh)
    try:
      _, items, _ = store.restore(abstract._asdict(), step)
    except manager.CheckpointError:
      continue  # Named in the log; from now on `latest` skips it.
    # Its name in runs of before there was `pending_evaluation`.
    meta.setdefault('pending_evaluation', meta.get('unseen', False))
    return step, span, train_state.TrainState(**items), meta
  if store.steps():
    raise manager.CheckpointError(
      f'Every checkpoint in {store.directory} is corrupt: restore one from a '
      'copy, or start again in another --workdir.'
    )
  return 0, None, None, {}
