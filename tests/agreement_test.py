"""Processes that were given different things, as each of them is told."""

import types

import jax
import numpy as np
import pytest
import tiny_config

from vdm.common import errors
from vdm.data import builders
from vdm.multihost import coordination
from vdm.training import agreement

SHOTS = np.array([0, 1, 2])


@pytest.fixture
def config(tmp_path):
  return tiny_config.make_config(tmp_path)


def make_source(fingerprint='f', order=(0, 1, 2), starts=(0, 0, 0), **_):
  order = list(order)
  return types.SimpleNamespace(
    directory=f'/data/{fingerprint}',
    info={'fingerprint': fingerprint},
    index={
      'id': np.array(['a', 'b', 'c'])[order],
      'shot': SHOTS[order],
      'start': np.array(starts)[order],
      'n': np.array([8, 9, 7])[order],
      'label': np.array([0, 1, 1])[order],
    },
  )


def each(monkeypatch, calls):
  """What each process raises or returns; `calls` are made one after another.

  Of each process the first pass finds what it says to the others.
  """
  monkeypatch.setattr(jax, 'process_count', lambda: len(calls))
  texts, ends = [], []

  def say(what, text):
    texts.append(text)
    raise InterruptedError

  for call in calls:
    monkeypatch.setattr(coordination, 'gather', say)
    with pytest.raises(InterruptedError):
      call()
  monkeypatch.setattr(coordination, 'gather', lambda what, text: texts)
  for call in calls:
    try:
      ends.append(call())
    except (errors.UsageError, builders.MissingDataset) as error:
      ends.append(error)
  return ends


def open_as(monkeypatch, source):
  def call():
    monkeypatch.setattr(agreement.datasets, 'ensure', lambda data: 'folder')

    def open_source(*_):
      if source is None:
        raise builders.MissingDataset('There is no data set in /data/x')
      return source

    monkeypatch.setattr(agreement.builders, 'open_source', open_source)
    return agreement.open_sources(types.SimpleNamespace(split_list='01'))

  return call


def test_another_configuration_is_named_on_all_processes(config, monkeypatch):
  other = config.copy_and_resolve_references()
  other.stages.video.batch = 16
  other.data.update(root='/local', threads=7)  # Its own affair.
  calls = [
    lambda: agreement.check_config(config),
    lambda: agreement.check_config(config),
    lambda: agreement.check_config(other),
  ]
  for end in each(monkeypatch, calls):
    assert str(end).startswith('Process 2 of 3 was given another configuration')
    assert ': config.stages.video.batch=16, not 8. Start the' in str(end)
  other.stages.video.batch = 8
  assert each(monkeypatch, calls) == [None] * 3


def test_many_differences_are_counted(config, monkeypatch):
  other = config.copy_and_resolve_references()
  other.sample.update(steps=3, num=3, batch=3, final=3, seed=3, guidance=3.0)
  calls = [
    lambda: agreement.check_config(config),
    lambda: agreement.check_config(other),
  ]
  assert ' and 2 more. Start' in str(each(monkeypatch, calls)[0])


@pytest.mark.parametrize('other', [{'fingerprint': 'g'}, {'starts': (0, 4, 0)}])
def test_another_data_set_is_named_on_all_processes(other, monkeypatch):
  calls = [
    open_as(monkeypatch, make_source()),
    open_as(monkeypatch, make_source(**other)),
  ]
  for end in each(monkeypatch, calls):
    assert isinstance(end, errors.UsageError)
    assert str(end).startswith('Process 1 of 2 has another data set in /data/')
    assert 'than process 0 in /data/f (' in str(end)


def test_the_order_of_the_records_is_of_no_concern(monkeypatch):
  calls = [
    open_as(monkeypatch, make_source()),
    open_as(monkeypatch, make_source(order=(2, 0, 1))),
  ]
  for end in each(monkeypatch, calls):
    assert set(end) == {'train', 'validation'}


def test_no_data_set_on_one_host(monkeypatch):
  calls = [open_as(monkeypatch, make_source()), open_as(monkeypatch, None)]
  first, second = each(monkeypatch, calls)
  assert str(first).startswith('Process 1 of 2 has no data set')
  assert 'no data set in /data/x' in str(second)
