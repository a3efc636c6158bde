"""Limited processes: order does not matter, one bad item costs one item."""

import os
import signal
import subprocess
import sys
import time

from conftest import ROOT
import numpy as np
import pytest

from vdm.preparation import workers

LIMITS = workers.Limits(seconds=60, stall_seconds=60, memory_mb=1024)


def behave(item, alive):
  """Does what the item says; runs in the worker."""
  match item:
    case 'crash':
      os.kill(os.getpid(), signal.SIGSEGV)
    case 'exit':
      os._exit(3)
    case 'raise':
      raise ValueError('what a\nmess')
    case 'hang':
      time.sleep(1000)
    case 'endless':
      while True:
        alive()
        time.sleep(0.01)
    case 'grow':
      return len([np.ones(1 << 25) for _ in range(100)])
    case 'pid':
      return os.getpid()
  return item * 2


def outcomes(items, limits=LIMITS, count=2):
  found = dict(workers.run(behave, items, workers=count, limits=limits))
  assert sorted(found) == list(range(len(items)))
  return [found[i] for i in range(len(items))]


def test_bad_items_cost_themselves_alone():
  limits = workers.Limits(seconds=12, stall_seconds=6, memory_mb=512)
  items = [1, 'crash', 2, 'hang', 'grow', 3, 'exit', 'raise', 4, 'endless', 5]
  found = outcomes(items, limits)
  assert [x for x in found if isinstance(x, int)] == [2, 4, 6, 8, 10]
  reasons = {
    item: outcome.reason
    for item, outcome in zip(items, found)
    if isinstance(outcome, workers.Failure)
  }
  assert reasons == {
    'crash': 'crashed',
    'hang': 'timeout',
    'grow': 'memory',
    'exit': 'crashed',
    'raise': 'failed',
    'endless': 'timeout',
  }
  messages = {i: f.message for i, f in zip(items, found) if i in reasons}
  assert messages['crash'].endswith('SIGSEGV')
  assert messages['exit'].endswith('code 3')
  assert messages['raise'] == 'ValueError: what a'
  assert 'nothing came for 6 s' in messages['hang']
  assert 'more than 12 s' in messages['endless']


def test_a_process_serves_many_items():
  assert len(set(outcomes(['pid'] * 6, count=1))) == 1
  assert outcomes([]) == []


def test_stopping_early_leaves_no_process():
  run = workers.run(behave, ['pid', 'hang', 'hang'], workers=2, limits=LIMITS)
  _, pid = next(run)
  run.close()
  with pytest.raises(ProcessLookupError):
    os.kill(pid, 0)


def test_workers_end_with_a_killed_parent():
  code = """
import os
from tests import workers_test
from vdm.preparation import workers
if __name__ == '__main__':
  run = workers.run(workers_test.behave, ['pid', 'hang'], workers=1,
                    limits=workers_test.LIMITS)
  print(next(run)[1], flush=True)
  os.kill(os.getpid(), 9)
"""
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}'},
    stdout=subprocess.PIPE,
    text=True,
    check=False,
  )
  pid = int(result.stdout)
  for _ in range(50):
    if not os.path.exists(f'/proc/{pid}'):
      return
    time.sleep(0.1)
  raise AssertionError('The worker lives on.')
