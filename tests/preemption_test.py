"""Signals to this process and a child, and votes of threads as processes."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time

from conftest import ROOT
import memory_store
import numpy as np
import pytest

from vdm.multihost import coordination
from vdm.multihost import preemption
from vdm.sampling import batching


@pytest.fixture
def left():
  """The exit codes with which the process would have exited."""
  return []


def wait_until(condition):
  deadline = time.monotonic() + 10
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert condition()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_at_the_next_poll_and_again_at_once(number, left):
  before = {n: signal.getsignal(n) for n in preemption.NUMBERS}
  with preemption.StopSignal(leave=left.append) as stop:
    assert not stop.received()
    stop.check()
    os.kill(os.getpid(), number)
    wait_until(lambda: stop._asked)
    assert stop.received() and stop.received() and not left
    with pytest.raises(preemption.Stopped):
      stop.check()
    os.kill(os.getpid(), number)
    wait_until(lambda: left)
    assert left == [75]
  assert before == {n: signal.getsignal(n) for n in preemption.NUMBERS}
  stop.close()  # Again: nothing happens.


def test_before_the_first_poll_it_exits_at_once(left):
  with preemption.StopSignal(leave=left.append):
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: left)
  assert left == [75]


class FakeVote:
  """Stands for the other processes."""

  asked = False

  def ask(self):
    self.asked = True

  def poll(self):
    return False


def test_several_processes_are_asked_and_exit_together(left):
  """The vote decides, before the first poll as well."""
  vote = FakeVote()
  with preemption.StopSignal(vote, left.append) as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: vote.asked)
    assert not stop.received() and not left


def test_sigusr1_asks_and_the_sigterm_after_it_does_not_hurry(left, caplog):
  with preemption.StopSignal(leave=left.append) as stop:
    assert not stop.received()
    for count, number in enumerate(
      (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM), 1
    ):
      os.kill(os.getpid(), number)
      wait_until(lambda count=count: len(caplog.messages) == count)
    wait_until(lambda: stop._asked)
    assert stop.received() and not left
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: left)
  assert left == [75]
  assert 'SIGUSR1: stopping' in caplog.messages[0]


def test_sigusr1_before_the_first_poll(left):
  with preemption.StopSignal(leave=left.append):
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_until(lambda: left)
  assert left == [75]


@pytest.mark.parametrize('vote', [None, 'several'])
def test_the_log_says_at_once_what_is_waited_for(
  left, vote, monkeypatch, caplog
):
  monkeypatch.setattr(preemption, 'REMINDER_SECONDS', 0.05)
  with (
    caplog.at_level('WARNING', logger='absl'),
    preemption.StopSignal(vote and FakeVote(), left.append) as stop,
  ):
    stop.received()

    def work(rows):
      os.kill(os.getpid(), signal.SIGTERM)
      wait_until(lambda: 'Still stopping, after vdm/sampling/' in caplog.text)
      return np.zeros(len(rows))

    batching.apply(work, (np.zeros(1),), 1)
  first = caplog.messages[0]
  assert 'SIGTERM: stopping' in first
  assert 'vdm/sampling/batching.py' in first and '(apply)' in first
  assert ('that all processes reach' in first) == bool(vote)


BUSY = """
import sys, time
import numpy as np
from vdm.multihost import preemption
with preemption.StopSignal() as stop:
  print('ready', flush=True)
  x = np.random.default_rng(0).standard_normal((9000, 9000))
  np.linalg.svd(x)  # Minutes in one call: no Python signal handler runs.
  print('still here', flush=True)
"""


def test_a_signal_is_handled_inside_a_long_call():
  process = subprocess.Popen(
    [sys.executable, '-c', BUSY],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout.readline() == 'ready\n'
    time.sleep(4)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
  finally:
    process.kill()
  assert time.monotonic() - start < 5
  assert process.returncode == 75 and output == '', errors
  assert 'SIGTERM' in errors and 'before the first step' in errors


@pytest.fixture
def make_vote(monkeypatch):
  """Returns a function that makes the vote of one of several processes."""
  store = memory_store.Store()
  monkeypatch.setattr(coordination, 'store', lambda: store)

  def make(index, count, left):
    return preemption.Vote(index, count, lambda code: left.append(index))

  return make


@pytest.mark.parametrize('seed', range(8))
def test_all_stop_at_the_same_poll(seed, make_vote):
  """Whichever process was asked, however far apart they are."""
  rng = random.Random(seed)
  count, left = rng.choice([2, 3, 5]), []
  votes = [make_vote(i, count, left) for i in range(count)]
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


def test_before_the_first_poll_all_exit_at_once(make_vote):
  left = []
  votes = [make_vote(i, 2, left) for i in range(2)]
  votes[1].ask()
  for _, vote in itertools.product(range(3), votes):
    vote.tick()
  assert sorted(set(left)) == [0, 1]


def test_a_process_that_has_not_polled_waits_for_one_that_has(make_vote):
  left = []
  votes = [make_vote(i, 2, left) for i in range(2)]
  assert not votes[0].poll()
  votes[1].ask()
  for _, vote in itertools.product(range(3), votes):
    vote.tick()
  assert not left
  assert not votes[1].poll()  # The second's first poll is the first's too.
  assert votes[0].poll() and votes[1].poll()


def test_a_process_that_was_not_asked_says_that_it_stops_too(make_vote, caplog):
  votes = [make_vote(i, 2, []) for i in range(2)]
  for vote in (*votes, votes[1]):
    vote.poll()
  votes[0].ask()
  with caplog.at_level('INFO', logger='absl'):
    for vote in (*votes, *votes):
      vote.tick()
  assert 'Process 0 was asked to stop' in caplog.text
  assert 'All processes stop 2 steps or parts from here' in caplog.text
