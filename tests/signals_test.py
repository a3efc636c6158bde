"""Signals, sent to this process and to one of its own."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from vdm.training import signals

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def handlers():
  """Gives pytest its own handlers back."""
  kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
  yield
  for number, handler in kept.items():
    signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_the_next_is_the_systems(number):
  stop = signals.StopSignal()
  assert not stop.received()
  os.kill(os.getpid(), number)
  assert stop.received() and stop.received()
  assert signal.getsignal(number) == signal.SIG_DFL


def test_a_second_signal_ends_the_process():
  program = (
    'import os, signal\n'
    'from vdm.training import signals\n'
    'stop = signals.StopSignal()\n'
    'os.kill(os.getpid(), signal.SIGTERM)\n'
    'print(stop.received(), flush=True)\n'
    'os.kill(os.getpid(), signal.SIGTERM)\n'
    'print("still here")\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.stdout == 'True\n'
  assert done.returncode == -signal.SIGTERM
