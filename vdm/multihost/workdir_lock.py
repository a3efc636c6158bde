"""One run at a time writes a folder, and all of its processes see that folder.

The first process keeps `lock.json` in the workdir: a token of this start, where
the process is, and a count that rises every `PERIOD` seconds. Another start
that finds the file is refused while its holder is alive: on the same machine
the process id says so, elsewhere the rising count; clocks are not compared. A
holder that was killed leaves the file behind, and the next start takes it over.

Neither network file systems nor object stores have a lock that all of them
honour. So the file is only written and read: of two that take it in the same
moment the second write counts, and the other one stops when it sees that, as
does a run that was suspended for so long that it was replaced.
"""

import json
import os
import pathlib
import secrets
import socket
import threading
import time
from typing import Any

from absl import logging
from etils import epath

from vdm.common import errors
from vdm.common import files
from vdm.multihost import coordination

FILE = 'lock.json'
PERIOD = 10.0  # Seconds between two writes of the file.
FIRST_PERIOD = 1.0  # To the first one.
SILENCE = 3 * PERIOD  # A holder on another machine that is quiet is gone.
# To see a file of another host: NFS may believe for 30 s that a folder is as it
# was when it was last looked at.
VISIBLE = 40.0


class WorkdirLock:
  """Holds a workdir; a context manager that every process enters."""

  def __init__(self, workdir: epath.Path):
    """Does nothing yet.

    Args:
      workdir: the run's folder, local or in a bucket.
    """
    self._workdir, self._path = workdir, workdir / FILE
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._content: dict[str, Any] = {}

  def __enter__(self) -> 'WorkdirLock':
    """Takes the lock on the first process, and has all the others see it.

    Raises:
      UsageError: on all processes: another run holds the folder, or a process
        does not see it.
    """
    problem = self._take() if coordination.is_first() else ''
    mine = json.dumps([problem, self._content.get('token')])
    problem, token = json.loads(
      coordination.gather('taking the workdir', mine)[0]
    )
    if problem:
      raise errors.UsageError(problem)
    try:
      self._check_visible(token)
    except errors.UsageError:
      self._release()
      raise
    if coordination.is_first():
      self._thread.start()
    return self

  def __exit__(self, *error):
    self._closed.set()
    if self._thread.is_alive():
      self._thread.join()
    self._release()

  def _take(self) -> str:
    """Writes the file, or returns who holds it."""
    if holder := _holder(self._path):
      return (
        f'{self._workdir} is in use by {holder}: wait until that run has '
        'ended, or give another --workdir.'
      )
    self._content = {
      'token': secrets.token_hex(8),
      'host': socket.gethostname(),
      'pid': os.getpid(),
      'machine': _machine(),
      'born': _born(os.getpid()),
      'count': 0,
    }
    self._workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(self._path, self._content)
    return ''

  def _release(self) -> None:
    if self._content and self._is_mine():
      self._path.unlink(missing_ok=True)

  def _is_mine(self) -> bool:
    found = _read(self._path)
    return found is not None and found['token'] == self._content['token']

  def _check_visible(self, token: str) -> None:
    """Waits until every process sees the file that the first has written."""
    deadline = time.monotonic() + VISIBLE
    while (found := _read(self._path)) is None or found['token'] != token:
      if time.monotonic() > deadline:
        break
      time.sleep(0.1)
    sees = found is not None and found['token'] == token
    answers = coordination.gather(
      'seeing the workdir', json.dumps([sees, socket.gethostname()])
    )
    hosts = {
      process: host
      for process, (seen, host) in enumerate(map(json.loads, answers))
      if not seen
    }
    if hosts:
      raise errors.UsageError(
        f'{coordination.process_names(hosts)} ({", ".join(hosts.values())}) '
        f'does not see what process 0 has written to {self._workdir}: give a '
        '--workdir on a file system that all processes share, or '
        'gs://BUCKET/FOLDER.'
      )

  def _run(self) -> None:
    period = FIRST_PERIOD
    while not self._closed.wait(period):
      period = PERIOD
      try:
        found = _read(self._path)
        if found is not None and found['token'] != self._content['token']:
          logging.error(
            '%s has been taken over by process %s on %s. Stopping.',
            self._workdir,
            found['pid'],
            found['host'],
          )
          coordination.leave(errors.USAGE_ERROR)
        self._content['count'] += 1
        files.write_json(self._path, self._content)
      except Exception as error:  # A full disk, or a server that is away.
        logging.warning('%s cannot be written: %s', self._path, error)


def holder(workdir: epath.Path) -> str:
  """Returns which process holds a workdir, in words; '' if none does."""
  return _holder(workdir / FILE)


def _read(path: epath.Path) -> dict[str, Any] | None:
  """Returns the content of a lock file; None if there is none."""
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError):
    return None
  fields = {'token', 'host', 'pid', 'machine', 'born', 'count'}
  whole = isinstance(content, dict) and content.keys() >= fields
  return content if whole else None


def _holder(path: epath.Path) -> str:
  """Returns whose a lock file is, in words; '' if they are gone.

  Takes up to `SILENCE` seconds if that is another machine's.
  """
  found = _read(path)
  if found is None:
    return ''
  holder = f'process {found["pid"]} on {found["host"]}'
  if found['machine'] and found['machine'] == _machine():
    return holder if _born(found['pid']) == found['born'] else ''
  logging.info(
    '%s is of %s: waiting up to %.0f s to see whether it is alive.',
    path,
    holder,
    SILENCE,
  )
  deadline = time.monotonic() + SILENCE
  while time.monotonic() < deadline:
    time.sleep(min(1.0, PERIOD))
    now = _read(path)
    if now is None:
      return ''  # Its run has just ended.
    if now != found:
      return f'process {now["pid"]} on {now["host"]}'
  return ''


def _machine() -> str:
  """Returns where this process's id means this process; '' if unknown."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:  # Not Linux.
    return ''


def _born(pid: int) -> str:
  """Returns when a process started, in ticks; '' if it has ended."""
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return ''
  # The name before, in parentheses, may contain anything.
  state, *values = text.rpartition(')')[2].split()
  return '' if state in 'ZX' else values[18]
