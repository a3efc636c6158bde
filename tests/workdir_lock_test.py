"""Who may write a run's folder, and who finds out that they may not."""

import json
import os
import signal
import subprocess
import sys
import time

from conftest import ROOT
from etils import epath
import memory_store
import pytest

from vdm.common import errors
from vdm.multihost import coordination
from vdm.multihost import workdir_lock

# Takes the lock, says so, and keeps it until it is killed.
HOLDER = """
import sys, time
from etils import epath
from vdm.multihost import workdir_lock
with workdir_lock.WorkdirLock(epath.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


@pytest.fixture
def workdir(tmp_path):
  return epath.Path(tmp_path) / 'run'


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(workdir_lock, 'PERIOD', 0.05)
  monkeypatch.setattr(workdir_lock, 'FIRST_PERIOD', 0.05)
  monkeypatch.setattr(workdir_lock, 'SILENCE', 0.5)


def content(workdir):
  return json.loads((workdir / workdir_lock.FILE).read_text())


def write(workdir, **changes):
  """A lock file of this process, with other values."""
  with workdir_lock.WorkdirLock(workdir):
    found = content(workdir)
  (workdir / workdir_lock.FILE).write_text(json.dumps(found | changes))


def wait_until(condition):
  deadline = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_a_folder_is_free_again_after_its_run(workdir):
  for _ in range(2):
    with workdir_lock.WorkdirLock(workdir):
      found = content(workdir)
      assert found['pid'] == os.getpid()
      held = f'in use by process {os.getpid()} on {found["host"]}: wait'
      with pytest.raises(errors.UsageError, match=held):
        workdir_lock.WorkdirLock(workdir).__enter__()
    assert not list(workdir.iterdir())


def test_a_killed_run_leaves_no_wait(workdir):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLDER, str(workdir)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(errors.UsageError, match=f'process {holder.pid} on'):
      workdir_lock.WorkdirLock(workdir).__enter__()
  finally:
    holder.send_signal(signal.SIGKILL)
    # Not waited for: until then there is a zombie of its id.
    wait_until(lambda: not workdir_lock._born(holder.pid))
    started = time.monotonic()
    with workdir_lock.WorkdirLock(workdir):
      assert time.monotonic() - started < 1
    holder.communicate()


def test_another_process_may_have_the_id_of_a_killed_one(workdir):
  write(workdir, born='1')
  with workdir_lock.WorkdirLock(workdir):
    assert content(workdir)['born'] != '1'


@pytest.mark.parametrize('text', ['', '{"tok', '{}', '[]', '1'])
def test_a_file_that_is_not_whole_is_of_nobody(workdir, text):
  workdir.mkdir()
  (workdir / workdir_lock.FILE).write_text(text)
  with workdir_lock.WorkdirLock(workdir):
    assert content(workdir)['pid'] == os.getpid()


def test_a_silent_run_of_another_machine_is_taken_over(workdir, quick):
  write(workdir, machine='another', host='far')
  started = time.monotonic()
  with workdir_lock.WorkdirLock(workdir):
    assert time.monotonic() - started >= 0.5
    assert content(workdir)['host'] != 'far'


def test_a_live_run_of_another_machine_is_not(workdir, quick, monkeypatch):
  monkeypatch.setattr(workdir_lock, '_machine', lambda: 'far')
  with workdir_lock.WorkdirLock(workdir):
    monkeypatch.setattr(workdir_lock, '_machine', lambda: 'here')
    before = content(workdir)
    with pytest.raises(errors.UsageError, match='is in use by process'):
      workdir_lock.WorkdirLock(workdir).__enter__()
    assert content(workdir)['token'] == before['token']


def test_of_two_that_took_it_at_once_the_earlier_one_stops(
  workdir, quick, monkeypatch, caplog
):
  left = []

  def leave(code):
    left.append(code)
    raise OSError  # Ends this beat, as the end of the process would.

  monkeypatch.setattr(coordination, 'leave', leave)
  with workdir_lock.WorkdirLock(workdir):
    other = content(workdir) | {'token': 'other', 'host': 'far', 'pid': 7}
    (workdir / workdir_lock.FILE).write_text(json.dumps(other))
    wait_until(lambda: left)
  assert left[0] == errors.USAGE_ERROR
  assert 'taken over by process 7 on far' in caplog.text
  assert content(workdir)['token'] == 'other'  # Which is not removed.


def test_a_disk_that_is_full_for_a_while_changes_nothing(
  workdir, quick, monkeypatch, caplog
):
  write_json, failed = workdir_lock.files.write_json, []

  def fail(path, found):
    failed.append(path)
    raise OSError(28, 'No space left on device')

  with workdir_lock.WorkdirLock(workdir):
    monkeypatch.setattr(workdir_lock.files, 'write_json', fail)
    wait_until(lambda: len(failed) > 1)
    monkeypatch.setattr(workdir_lock.files, 'write_json', write_json)
    count = content(workdir)['count']
    wait_until(lambda: content(workdir)['count'] > count)
  assert 'No space left' in caplog.text


def test_every_process_is_told_why_the_first_may_not_start(
  workdir, monkeypatch
):
  memory_store.pretend_three(monkeypatch)
  monkeypatch.setattr(workdir_lock, '_holder', lambda path: 'process 5 on far')
  said = []

  def gather(what, text):
    said.append(text)
    return [text] * 3

  monkeypatch.setattr(coordination, 'gather', gather)
  with pytest.raises(errors.UsageError, match='process 5 on far'):
    workdir_lock.WorkdirLock(workdir).__enter__()
  monkeypatch.setattr(coordination, 'is_first', lambda: False)
  monkeypatch.setattr(coordination, 'gather', lambda what, text: said)
  with pytest.raises(errors.UsageError, match='process 5 on far'):
    workdir_lock.WorkdirLock(workdir).__enter__()
