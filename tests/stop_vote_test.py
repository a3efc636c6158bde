"""Votes, on a store in memory and threads for processes."""

import itertools
import random
import threading
import time

import memory_store
import pytest

from vdm.multihost import coordination
from vdm.multihost import stop_vote


def make_vote(store, index, count, left):
  return stop_vote.Vote(
    index,
    count,
    lambda key, text: store.key_value_set(key, text, True),
    lambda folder: coordination.numbered(store.key_value_dir_get(folder)),
    lambda: left.append(index),
  )


@pytest.mark.parametrize('seed', range(8))
def test_all_stop_at_the_same_poll(seed):
  """Whoever was asked, however far apart they are, in whatever order."""
  rng = random.Random(seed)
  store, count, left = memory_store.Store(), rng.choice([2, 3, 5]), []
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
  store, left = memory_store.Store(), []
  votes = [make_vote(store, i, 2, left) for i in range(2)]
  votes[1].ask()
  for _, vote in itertools.product(range(3), votes):
    vote.tick()
  assert sorted(set(left)) == [0, 1]


def test_who_has_begun_is_waited_for_by_who_has_not():
  store, left = memory_store.Store(), []
  votes = [make_vote(store, i, 2, left) for i in range(2)]
  assert not votes[0].poll()
  votes[1].ask()
  for _, vote in itertools.product(range(3), votes):
    vote.tick()
  assert not left
  assert not votes[1].poll()  # The second's first poll is the first's too.
  assert votes[0].poll() and votes[1].poll()
