"""Messages between processes, with a store in memory."""

import jax
import memory_store
import pytest

from vdm.multihost import coordination


@pytest.fixture
def several(monkeypatch):
  return memory_store.pretend_three(monkeypatch)


def test_a_barrier_names_the_missing_process(several):
  def wait_at_barrier(name, timeout_in_ms):
    del name
    several.key_value_set('vdm/round/0/2', 'here')
    raise jax.errors.JaxRuntimeError(f'DEADLINE_EXCEEDED {timeout_in_ms}')

  several.wait_at_barrier = wait_at_barrier
  several.key_value_set('vdm/alive/1', 'beat 3, 2 steps or parts done, in x')
  coordination.set_limit(60.0)
  with pytest.raises(coordination.CoordinationError) as error:
    coordination.gather('saving')
  assert str(error.value).startswith(
    "Process 1 of 3 did not reach 'saving' within 60 s"
  )
  assert str(error.value).endswith(
    'process 1: beat 3, 2 steps or parts done, in x'
  )


def test_messages_reach_all_processes_in_order(several):
  def wait_at_barrier(name, timeout_in_ms):
    del timeout_in_ms
    number = name.rpartition('/')[2]
    several.key_value_set(f'vdm/round/{number}/1', '')
    several.key_value_set(f'vdm/round/{number}/2', 'c')

  several.wait_at_barrier = wait_at_barrier
  assert coordination.gather('letters', 'a') == ['a', '', 'c']
  assert not coordination.all_agree('letters', True)
  assert coordination.first_says('the first', True)
  assert not coordination.first_says('the first', False)
  # Rounds that all have read are deleted.
  kept = {key.split('/')[2] for key in several.values if 'round' in key}
  assert kept == {'2', '3'}


def test_one_process_waits_for_nothing():
  assert coordination.gather('alone', 'x') == ['x']
  assert coordination.all_agree('alone', True) and not coordination.all_agree(
    'alone', False
  )
