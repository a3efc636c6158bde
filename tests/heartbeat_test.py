"""What a process knows of the others, with a store in memory."""

from concurrent import futures
import re
import time

import memory_store
import pytest

from vdm.multihost import coordination
from vdm.multihost import heartbeat


@pytest.fixture
def several(monkeypatch):
  return memory_store.pretend_three(monkeypatch)


def test_silence_and_failure_are_named(several, caplog):
  watch = heartbeat.Watch(5.0, 60.0)
  watch._heard = dict.fromkeys(range(3), ('', 100.0))
  watch._listen({0: '1', 1: '1', 2: '1'}, 101.0)
  watch._listen({0: '2', 1: '2', 2: '1'}, 105.9)  # 4.9 s: not yet.
  with pytest.raises(memory_store.Left, match='75'):
    watch._listen({0: '3', 1: '3', 2: '1'}, 106.1)
  assert 'Process 2 of 3 has not been heard of for 5 s' in caplog.text
  with pytest.raises(memory_store.Left):
    watch._listen({1: 'failed: ValueError: no such thing'}, 106.2)
  assert 'Process 1 of 3 failed: ValueError: no such thing' in caplog.text
  # Without the store it is the first process that is gone.
  watch._listen({}, 105.0, 'UNAVAILABLE')
  with pytest.raises(memory_store.Left):
    watch._listen({}, 120.0, 'UNAVAILABLE: connection refused')
  assert 'Process 0 of 3 has not been heard of' in caplog.text
  assert 'connection refused' in caplog.text


def test_a_failure_is_told_to_the_others(several):
  with heartbeat.Watch(5.0, 60.0) as watch:
    with pytest.raises(KeyError), watch.reporting():
      raise KeyError('there is no such clip')
    time.sleep(10 * heartbeat.PERIOD)  # No beat takes its place.
  assert several.values['vdm/alive/0'].startswith('failed: KeyError:')


def test_who_hangs_where_is_said(several, caplog, capfd):
  watch = heartbeat.Watch(5.0, 60.0)
  several.key_value_set('vdm/alive/0', 'beat 99, 7 steps or parts done, in a')
  several.key_value_set('vdm/alive/1', 'beat 98, 6 steps or parts done, in b')
  watch._look_after(0, 0.0)
  watch._look_after(0, 1000.0)  # Not begun: a data set is being built.
  watch._look_after(1, 1001.0)
  watch._look_after(1, 1061.0)
  watch._look_after(2, 1062.0)
  watch._look_after(2, 1122.0)
  assert not caplog.text
  with pytest.raises(memory_store.Left, match='75'):
    watch._look_after(2, 1122.1)
  assert 'Nothing has come to an end for 60 s' in caplog.text
  assert 'process 1: beat 98, 6 steps or parts done, in b' in caplog.text
  # The stacks, which say where this one is.
  assert 'test_who_hangs_where_is_said' in capfd.readouterr().err


def test_beats_say_where_the_main_thread_is(several):
  with heartbeat.Watch(5.0, 60.0) as watch:
    watch.vote.poll()
    deadline, said = time.monotonic() + 20, ''
    while not re.fullmatch(
      r'beat \d+, 1 steps or parts done, in another package', said
    ):
      assert time.monotonic() < deadline, said
      time.sleep(0.02)
      said = several.values.get('vdm/alive/0', '')

  def wait_at_barrier(name, timeout_in_ms):
    del name, timeout_in_ms
    with futures.ThreadPoolExecutor() as pool:
      place = pool.submit(heartbeat._main_place).result()
    assert place.startswith('vdm/multihost/coordination.py:')
    assert place.endswith('(gather)')
    raise KeyboardInterrupt

  several.wait_at_barrier = wait_at_barrier
  with pytest.raises(KeyboardInterrupt):
    coordination.gather('saving')


def test_alone_nobody_is_watched():
  with heartbeat.Watch(5.0, 60.0) as watch, watch.reporting():
    assert watch.vote is None
