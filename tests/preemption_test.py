"""Signals, sent to this process and to one of its own."""

import os
import signal
import subprocess
import sys
import time

from conftest import ROOT
import pytest

from vdm.multihost import preemption


@pytest.fixture
def left():
  """The exit codes with which a process would have left."""
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
    wait_until(lambda: stop._received)
    assert stop.received() and stop.received() and not left
    with pytest.raises(preemption.Stopped):
      stop.check()
    os.kill(os.getpid(), number)
    wait_until(lambda: left)
    assert left == [75]
  assert before == {n: signal.getsignal(n) for n in preemption.NUMBERS}
  stop.close()  # Again: nothing happens.


def test_before_the_first_poll_nothing_is_waited_for(left):
  with preemption.StopSignal(leave=left.append):
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: left)
  assert left == [75]


class Vote:
  """Stands for the other processes."""

  asked = False

  def ask(self):
    self.asked = True

  def poll(self):
    return False


def test_several_processes_are_asked_and_leave_together(left):
  """The vote decides, before the first poll as well."""
  vote = Vote()
  with preemption.StopSignal(vote, left.append) as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(lambda: vote.asked)
    assert not stop.received() and not left


BUSY = """
import sys, time
import numpy as np
from vdm.multihost import preemption
with preemption.StopSignal() as stop:
  print('ready', flush=True)
  x = np.random.default_rng(0).standard_normal((9000, 9000))
  np.linalg.svd(x)  # Minutes inside of one call: no handler of Python's runs.
  print('still here', flush=True)
"""


def test_a_signal_is_heard_inside_of_a_long_call():
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
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
  finally:
    process.kill()
  assert time.monotonic() - began < 5
  assert process.returncode == 75 and output == '', errors
  assert 'SIGTERM before the first step' in errors
