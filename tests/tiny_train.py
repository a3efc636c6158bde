"""A run of four stages that takes seconds, once it is compiled."""

import contextlib
import math
import os
import sys

import pytest

from vdm import train
from vdm.checkpoints import manager
from vdm.config import schema
from vdm.multihost import preemption


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
  get_item = schema.ConfigDict.__getitem__
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

  def recorded_get_item(self, name):
    if reader():
      keys.add(name)
    return get_item(self, name)

  def recorded_items(self, *args, **kwargs):
    if reader():
      keys.update(self.keys())
    return items(self, *args, **kwargs)

  def recorded_to_dict(self, *args, **kwargs):
    if reader():
      keys.update(self.keys())
    return to_dict(self, *args, **kwargs)

  schema.ConfigDict.__getattr__ = recorded_get
  schema.ConfigDict.__getitem__ = recorded_get_item
  schema.ConfigDict.to_dict = recorded_to_dict
  schema.ConfigDict.items = recorded_items
  try:
    yield keys
  finally:
    schema.ConfigDict.__getattr__ = get
    schema.ConfigDict.__getitem__ = get_item
    schema.ConfigDict.items = items
    schema.ConfigDict.to_dict = to_dict
