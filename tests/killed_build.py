"""The build of a cache, in a process that is killed in the middle."""

import os
import signal
import subprocess
import sys

from conftest import ROOT

BUILD = """
import sys, time
import {module} as test
{prepare}
calls = 0
def encode(values):
  global calls
  calls += 1
  if calls == {call}:
    print('in the middle', flush=True)
    time.sleep(60)
  return test.encode(values)
test.make(sys.argv[1], encode=encode)
"""


def kill(module, prepare, call, folder):
  """Builds a cache until a call of `encode`, and kills the process in it.

  Args:
    module: of tests, with `make` and `encode`.
    prepare: statements before the build.
    call: number of the call, counted from 1.
    folder: of the cache.
  """
  code = BUILD.format(module=module, prepare=prepare, call=call)
  process = subprocess.Popen(
    [sys.executable, '-c', code, str(folder)],
    cwd=ROOT,
    env=dict(os.environ, PYTHONPATH=f'{ROOT}:{ROOT / "tests"}'),
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'in the middle\n'
  process.send_signal(signal.SIGKILL)
  process.communicate()
