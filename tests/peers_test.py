"""Votes and watches, on a store in memory and threads for processes."""

import itertools
import random
import threading
import time

import jax
import pytest

from vdm.training import peers


class Store:
  """jax's key-value store, in memory."""

  def __init__(self):
    self.values, self.lock = {}, threading.Lock()

  def key_value_set(self, key, value, allow_overwrite=False):
    with self.lock:
      assert allow_overwrite or key not in self.values
      self.values[key] = value

  def key_value_dir_get(self, folder):
    with self.lock:
      return [(k, v) for k, v in self.values.items() if k.startswith(folder)]

  def key_value_delete(self, folder):
    with self.lock:
      for key in [k for k in self.values if k.startswith(folder)]:
        del self.values[key]


def make_vote(store, index, count, left):
  return peers.Vote(
    index,
    count,
    lambda key, text: store.key_value_set(key, text, True),
    lambda folder: peers._numbered(store.key_value_dir_get(folder)),
    lambda: left.append(index),
  )


@pytest.mark.parametrize('seed', range(8))
def test_all_stop_at_the_same_poll(seed):
  """Whoever was asked, however far apart they are, in whatever order."""
  rng = random.Random(seed)
  store, count, left = Store(), rng.choice([2, 3, 5]), []
  votes = [make_vote(store, i, count, left) for i in range(count)]
  asked = rng.randrange(count)
  when = rng.randrange(5, 30)
  # No process is more than one step ahead: a step is a collective.
  steps = [threading.Barrier(count) for _ in range(200)]
  stopped, done = {}, threading.Event()

  def work(index):
    own = random.Random(f'{seed} {index}')
    for n in range(200):
      if index == asked and n == when:
        votes[index].ask()
      steps[n].wait(20)
      time.sleep(own.random() * 0.004)
      if votes[index].poll():
        stopped[index] = n
        return

  def tick(index):
    own = random.Random(f'{seed} {index} tick')
    while not done.is_set():
      votes[index].tick()
      time.sleep(own.random() * 0.01)

  ticking = [threading.Thread(target=tick, args=(i,)) for i in range(count)]
  working = [threading.Thread(target=work, args=(i,)) for i in range(count)]
  for thread in (*ticking, *working):
    thread.start()
  for thread in working:
    thread.join(30)
  done.set()
  assert len(stopped) == count and len(set(stopped.values())) == 1
  assert stopped[0] >= when and not left


def test_before_the_first_poll_all_leave_at_once():
  store, left = Store(), []
  votes = [make_vote(store, i, 2, left) for i in range(2)]
  votes[1].ask()
  for _, vote in itertools.product(range(3), votes):
    vote.tick()
  assert sorted(set(left)) == [0, 1]


def test_who_has_begun_is_waited_for_by_who_has_not():
  store, left = Store(), []
  votes = [make_vote(store, i, 2, left) for i in range(2)]
  assert not votes[0].poll()
  votes[1].ask()
  for _, vote in itertools.product(range(3), votes):
    vote.tick()
  assert not left
  assert not votes[1].poll()  # The second's first poll is the first's too.
  assert votes[0].poll() and votes[1].poll()


class Left(BaseException):
  """Stands for the end of the process."""


@pytest.fixture
def several(monkeypatch):
  """Makes this process the first of three, with a store in memory."""
  store = Store()
  monkeypatch.setattr(peers, 'store', lambda: store)
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  monkeypatch.setattr(peers, '_rounds', itertools.count())
  monkeypatch.setattr(peers, 'PERIOD', 0.02)

  def leave(code):
    raise Left(code)

  monkeypatch.setattr(peers, 'leave', leave)
  return store


def test_silence_and_failure_are_named(several, caplog):
  watch = peers.Watch(5.0, 60.0)
  watch._heard = dict.fromkeys(range(3), ('', 100.0))
  watch._listen({0: '1', 1: '1', 2: '1'}, 101.0)
  watch._listen({0: '2', 1: '2', 2: '1'}, 105.9)  # 4.9 s: not yet.
  with pytest.raises(Left, match='75'):
    watch._listen({0: '3', 1: '3', 2: '1'}, 106.1)
  assert 'Process 2 of 3 has not been heard of for 5 s' in caplog.text
  with pytest.raises(Left):
    watch._listen({1: 'failed: ValueError: no such thing'}, 106.2)
  assert 'Process 1 of 3 failed: ValueError: no such thing' in caplog.text
  # Without the store it is the first process that is gone.
  watch._listen({}, 105.0, 'UNAVAILABLE')
  with pytest.raises(Left):
    watch._listen({}, 120.0, 'UNAVAILABLE: connection refused')
  assert 'Process 0 of 3 has not been heard of' in caplog.text
  assert 'connection refused' in caplog.text


def test_a_failure_is_told_to_the_others(several):
  with (
    peers.Watch(5.0, 60.0) as watch,
    pytest.raises(KeyError),
    watch.reporting(),
  ):
    raise KeyError('there is no such clip')
  assert several.values['vdm/alive/0'].startswith('failed: KeyError:')


def test_a_barrier_names_who_is_missing(several):
  def wait_at_barrier(name, timeout_in_ms):
    del name
    several.key_value_set('vdm/round/0/2', 'here')
    raise jax.errors.JaxRuntimeError(f'DEADLINE_EXCEEDED {timeout_in_ms}')

  several.wait_at_barrier = wait_at_barrier
  peers.Watch(5.0, 60.0)
  with pytest.raises(peers.PeerError) as error:
    peers.gather('saving')
  assert str(error.value).startswith(
    "Process 1 of 3 did not come to 'saving' within 60 s"
  )


def test_what_is_said_reaches_all_in_order(several):
  def wait_at_barrier(name, timeout_in_ms):
    del timeout_in_ms
    number = name.rpartition('/')[2]
    several.key_value_set(f'vdm/round/{number}/1', '')
    several.key_value_set(f'vdm/round/{number}/2', 'c')

  several.wait_at_barrier = wait_at_barrier
  assert peers.gather('letters', 'a') == ['a', '', 'c']
  assert not peers.all_agree('letters', True)
  assert peers.first_says('the first', True)
  assert not peers.first_says('the first', False)
  # What everybody has read is not kept.
  kept = {key.split('/')[2] for key in several.values if 'round' in key}
  assert kept == {'2', '3'}


def test_alone_nothing_is_waited_for():
  assert peers.gather('alone', 'x') == ['x']
  assert peers.all_agree('alone', True) and not peers.all_agree('alone', False)
  with peers.Watch(5.0, 60.0) as watch, watch.reporting():
    assert watch.vote is None
