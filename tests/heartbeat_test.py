"""Heartbeats of several processes, with a store in memory."""

from concurrent import futures
import re
import time

import memory_store
import numpy as np
import pytest

from vdm.multihost import coordination
from vdm.multihost import heartbeat
from vdm.multihost import main_thread
from vdm.sampling import batching


@pytest.fixture
def several(monkeypatch):
  return memory_store.pretend_three(monkeypatch)


def test_silence_and_failure_are_named(several, caplog):
  beats = heartbeat.Heartbeat(5.0, 60.0)
  beats._heard = dict.fromkeys(range(3), ('', 100.0))
  beats._check_others({0: '1', 1: '1', 2: '1'}, 101.0)
  beats._check_others({0: '2', 1: '2', 2: '1'}, 105.9)  # 4.9 s: not yet.
  with pytest.raises(memory_store.Left, match='75'):
    beats._check_others({0: '3', 1: '3', 2: '1'}, 106.1)
  assert 'Process 2 of 3 has not been heard of for 5 s' in caplog.text
  failed = {0: '4', 1: 'failed: ValueError: no such thing', 2: '2'}
  beats._check_others(failed, 106.2)  # What fails alike says so first.
  with pytest.raises(memory_store.Left, match='^1$'):
    beats._check_others(failed, 107.2)
  assert 'Process 1 of 3 failed: ValueError: no such thing' in caplog.text
  # Without the store, process 0 is gone.
  beats._check_others({}, 105.0, 'UNAVAILABLE')
  with pytest.raises(memory_store.Left):
    beats._check_others({}, 120.0, 'UNAVAILABLE: connection refused')
  assert 'Process 0 of 3 has not been heard of' in caplog.text
  assert 'connection refused' in caplog.text


def test_the_others_learn_of_a_failure(several):
  with heartbeat.Heartbeat(5.0, 60.0) as beats:
    with pytest.raises(KeyError), beats.reporting():
      raise KeyError('there is no such clip')
    time.sleep(10 * heartbeat.PERIOD)  # No heartbeat overwrites it.
  assert several.values['vdm/alive/0'].startswith('failed: KeyError:')


def test_a_process_that_failed_is_not_ended_by_others(several):
  with (
    heartbeat.Heartbeat(0.1, 60.0) as beats,
    pytest.raises(KeyError),
    beats.reporting(),
  ):
    try:
      with beats.reporting():
        raise KeyError('mine')
    finally:
      several.key_value_set('vdm/alive/1', 'failed: ValueError: theirs')
      time.sleep(0.5)  # Others fail, and are silent for long.
      assert not several.left
  assert several.values['vdm/alive/0'].startswith("failed: KeyError: 'mine'")


def test_who_lost_another_process_can_be_started_again(several, caplog):
  beats = heartbeat.Heartbeat(5.0, 60.0)
  with pytest.raises(coordination.CoordinationError), beats.reporting():
    raise coordination.CoordinationError('Process 2 of 3 did not reach it')
  said = several.values['vdm/alive/0']
  assert said.startswith('lost another process: CoordinationError')
  others = heartbeat.Heartbeat(5.0, 60.0)
  others._check_others({1: said}, 1.0)
  with pytest.raises(memory_store.Left, match='75'):
    others._check_others({1: said}, 2.0)
  assert 'run the same command again' in caplog.text


def test_a_hang_is_located(several, caplog, capfd):
  beats = heartbeat.Heartbeat(5.0, 60.0)
  several.key_value_set('vdm/alive/0', 'beat 99, 7 steps or parts done, in a')
  several.key_value_set('vdm/alive/1', 'beat 98, 6 steps or parts done, in b')
  beats._check_progress(0, 0.0)
  beats._check_progress(0, 1000.0)  # Not started: a data set is being built.
  beats._check_progress(1, 1001.0)
  beats._check_progress(1, 1061.0)
  beats._check_progress(2, 1062.0)
  beats._check_progress(2, 1122.0)
  assert not caplog.text
  with pytest.raises(memory_store.Left, match='75'):
    beats._check_progress(2, 1122.1)
  assert 'No step or part has finished for 60 s' in caplog.text
  assert 'process 1: beat 98, 6 steps or parts done, in b' in caplog.text
  # The stacks of this process.
  assert 'test_a_hang_is_located' in capfd.readouterr().err


def test_heartbeats_say_where_the_main_thread_is(several):
  with heartbeat.Heartbeat(5.0, 60.0) as beats:
    beats.vote.poll()
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
      place = pool.submit(main_thread.place).result()
    assert place.startswith('vdm/multihost/coordination.py:')
    assert place.endswith('(gather)')
    raise KeyboardInterrupt

  several.wait_at_barrier = wait_at_barrier
  with pytest.raises(KeyboardInterrupt):
    coordination.gather('saving')


def test_one_process_has_no_heartbeat():
  with heartbeat.Heartbeat(5.0, 60.0) as beats, beats.reporting():
    assert beats.vote is None


def test_a_program_that_compiles_is_said():
  found, names = [], {}
  source = 'def compile_it(function):\n  function()\n'
  exec(compile(source, '/lib/jax/_src/compiler.py', 'exec'), names)

  def work(rows):
    names['compile_it'](
      lambda: found.append(pool.submit(main_thread.place).result())
    )
    return rows

  with futures.ThreadPoolExecutor() as pool:
    batching.apply(work, (np.zeros(1),), 1)
  assert found[0].startswith('vdm/sampling/batching.py:')
  assert found[0].endswith('(apply), which compiles')
