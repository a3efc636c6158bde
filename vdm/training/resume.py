"""Whether a run may go on with a configuration, and where from.

The step is all there is to restore beside the state: data and randomness are
functions of it. What a configuration may change half-way is what neither the
past of the run nor the meaning of its state depends on.
"""

import re

from absl import logging

from vdm.config import schema
from vdm.config import serialize
from vdm.multihost import coordination
from vdm.training import stages

# Free at any time: cadences, logging, previews and where things are read.
FREE = (
  r'^(sample|score)\.',
  r'^train\.(log_every|eval_every|eval_clips|preview_every|keep|keep_every)$',
  r'^train\.(save_every|save_minutes|tensorboard|fsdp|max_skipped)$',
  r'^train\.(peer_seconds|barrier_minutes)$',
  r'^data\.(root|source|latents|max_bad_records|threads|workers)$',
  r'^autoencoder\.weights$',  # The workdir has them by then.
)


class ResumeError(ValueError):
  """The run in the folder is not the one that was asked for."""


def claim(config, path, stage, label_names, accept=False):
  """Writes `config.json`, or checks that the run may go on as asked.

  Args:
    config: the run's, as asked for now.
    path: of config.json.
    stage: name of the stage that the newest checkpoint is in, None for none.
    label_names: of the data set's classes.
    accept: goes on whatever differs, which is logged.

  Raises:
    ResumeError: the configuration differs where it may not.
  """
  if path.exists() and stage is not None:
    old = schema.complete(serialize.load(path))
    refused = [
      line
      for line in serialize.diff(old, config)
      if not may_change(line.split(':')[0], old, config, stage)
    ]
    if refused and not accept:
      raise ResumeError(
        f'{path} was written with another configuration ('
        + '; '.join(refused)
        + '): take those values back, give another --workdir, or say '
        '--accept_changes.'
      )
    for line in serialize.diff(old, config):
      logging.info('Changed on resume: %s', line)
  if coordination.is_first():
    serialize.save(config, path, label_names)
  coordination.gather('claiming the folder of the run')


def may_change(key, old, new, stage):
  """Whether a run in `stage` may go on with another value of `key`."""
  order = list(old.train.order)
  begun = order[: order.index(stage) + 1]
  if key == 'train.order':
    return list(new.train.order)[: len(begun)] == begun
  if any(re.search(pattern, key) for pattern in FREE):
    return True
  match = re.match(r'stages\.(\w+)\.', key)
  if not match:
    return False
  if match[1] not in begun:
    return True
  return match[1] == stage and key.endswith('.steps')


def span_of(config, step, name):
  """The span of the stage a checkpoint names.

  Raises:
    ResumeError: the stage's steps no longer cover the checkpoint's.
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


def check_data(trained_on, now, accept=False):
  """Refuses to go on with another data set than the run's, or logs that.

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
      f'{differs}: bring that data back, give another --workdir, or say '
      '--accept_changes.'
    )
  logging.warning('%s.', differs)
