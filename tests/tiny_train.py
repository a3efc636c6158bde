"""A run of four stages that takes seconds, once it is compiled."""

import contextlib
import math
import os
import sys

import pytest

from vdm import train
from vdm.checkpoints import manager
from vdm.config import recipes
from vdm.config import schema
from vdm.multihost import preemption


def make_config(root):
  """Four stages of a few steps on scenes of 16 px."""
  config = schema.default()
  config.data.update(root=str(root), resolution=16, threads=1)
  config.data.scenes.update(train=24, validation=8, frames=4)
  config.autoencoder.update(
    factor=4, channels=4, decoder_width=8, encoder_width=8, statistics_clips=8
  )
  config.model.update(
    widths=(8,),
    blocks=(1,),
    attention_levels=(),
    temporal_levels=(0,),
    temporal_attention_levels=(),
    head_size=8,
    embed_width=8,
    num_classes=8,
  )
  config.sample.update(steps=2, num=2, batch=8, final=8)
  config.score.update(every=2, num=4, best='motion')
  config.train.update(
    order=('autoencoder', 'image', 'motion', 'video'),
    log_every=1,
    eval_every=100,
    eval_clips=4,
    preview_every=100,
    save_every=100,
    snapshot_every=2,
    tensorboard=False,
  )
  stage = dict(resolution=16, batch=8, warmup=1, learning_rate=1e-2)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=3, crop=8, **stage
  )
  config.stages.image = schema.stage(steps=2, **stage)
  # One level without attention: two of the patterns would fit nothing.
  config.stages.motion = schema.stage(
    steps=2, frames=4, frozen=recipes.SPATIAL[::2], **stage
  )
  config.stages.video = schema.stage(
    steps=5,
    frames=4,
    image_fraction=0.4,
    frame_levels=dict(shared=0.4, context=0.3, independent=0.3),
    context_noise=0.2,
    **stage,
  )
  return config


class StopAfter:
  """A signal that comes at a certain poll between steps, or inside of one."""

  def __init__(self, polls, checks=math.inf):
    self.polls, self.checks = polls, checks

  def received(self):
    self.polls -= 1
    return self.polls <= 0 or self.checks <= 0

  def check(self):
    self.checks -= 1
    if self.polls <= 0 or self.checks <= 0:
      raise preemption.Stopped

  def __enter__(self):
    return self

  def __exit__(self, *error):
    pass


def train_until(config, workdir, polls, checks=math.inf):
  """Trains a run until a signal stops it, see `StopAfter`."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      preemption, 'StopSignal', lambda vote: StopAfter(polls, checks)
    )
    assert train.train(config, workdir) == train.STOPPED


def restored(workdir, step=None):
  """Parameters, moments and averages of a step; None: of the last one."""
  with manager.Checkpoints(workdir / 'checkpoints', read_only=True) as store:
    names = ('params', 'opt_state', 'ema')
    return {name: store.restore_item(name, step=step)[1] for name in names}


@contextlib.contextmanager
def recorded_keys():
  """Collects the names of the keys that `vdm` reads, but for its config room.

  Checking, hashing and storing a configuration reads every key: that does not
  count. `items()` and `to_dict()` hand all of a group's keys on by name and
  count for them, except where a score only records how it was made.
  """
  keys = set()
  get, items = schema.ConfigDict.__getattr__, schema.ConfigDict.items
  to_dict = schema.ConfigDict.to_dict

  def reader():
    file = sys._getframe(2).f_code.co_filename
    package = f'{os.sep}vdm{os.sep}'
    return (
      package in file
      and f'{package}config{os.sep}' not in file
      and not file.endswith('_score.py')
    )

  def recorded_get(self, name):
    if reader():
      keys.add(name)
    return get(self, name)

  def recorded_items(self, *args, **kwargs):
    if reader():
      keys.update(self.keys())
    return items(self, *args, **kwargs)

  def recorded_to_dict(self, *args, **kwargs):
    if reader():
      keys.update(self.keys())
    return to_dict(self, *args, **kwargs)

  schema.ConfigDict.__getattr__ = recorded_get
  schema.ConfigDict.to_dict = recorded_to_dict
  schema.ConfigDict.items = recorded_items
  try:
    yield keys
  finally:
    schema.ConfigDict.__getattr__ = get
    schema.ConfigDict.items = items
    schema.ConfigDict.to_dict = to_dict
