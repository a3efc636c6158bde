"""Slurm on this machine: enough of sbatch, srun, scontrol and squeue.

A node is a name, and its tasks are processes here. What a job sees is what
Slurm 23.11 sets (man sbatch, man srun, "OUTPUT ENVIRONMENT VARIABLES"). Run as
a program, this file is `srun`.
"""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys

# Requeueing a job asks for another start and keeps the state.
SCONTROL = """#!/bin/bash
echo "$@" >>"$FAKE_SLURM/scontrol"
[ ! -e "$FAKE_SLURM/refuse" ] || { echo 'Requeue is disabled' >&2; exit 1; }
touch "$FAKE_SLURM/requeued"
"""
SQUEUE = """#!/bin/bash
cat "$FAKE_SLURM/state"
"""


class Cluster:
  """A cluster of idle nodes.

  Attributes:
    folder: of the state, one file for each fact.
    bin: folder to put on PATH.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder, self.bin = folder, folder / 'bin'
    self.bin.mkdir(parents=True)
    self._add('srun', f'#!/bin/bash\nexec {sys.executable} {__file__} "$@"\n')
    self._add('scontrol', SCONTROL)
    self._add('squeue', SQUEUE)

  def _add(self, name, text):
    (self.bin / name).write_text(text)
    (self.bin / name).chmod(0o755)

  def write(self, name, text=''):
    (self.folder / name).write_text(text)

  def read(self, name):
    """Returns the text of a file of the state, '' if there is none."""
    path = self.folder / name
    return path.read_text() if path.exists() else ''

  def sbatch(self, options, script, *arguments, cwd, **environ):
    """Returns a `Job` that has not started."""
    return Job(self, options, script, arguments, cwd, environ)


class Job:
  """A submitted script.

  Attributes:
    options: {name: value} of the script's directives and the command line.
    id: the job's.
    output: file of all its starts.
  """

  def __init__(self, cluster, options, script, arguments, cwd, environ):
    self._cluster, self._cwd = cluster, cwd
    self.options = directives(script) | options
    self.id = job_id()
    self.output = cwd / f'slurm-{self.id}.out'
    self.starts = 0
    spool = cluster.folder / f'job{self.id}'
    spool.mkdir()
    # Slurm copies the script, which finds nothing beside itself there.
    (spool / 'slurm_script').write_text(script.read_text())
    self._command = ['bash', str(spool / 'slurm_script'), *arguments]
    nodes = int(self.options['nodes'])
    names = ','.join(['localhost', '127.0.0.1'][:nodes])
    tasks = int(self.options['ntasks-per-node'])
    self._environ = os.environ | environ
    self._environ |= {
      'PATH': f'{cluster.bin}:{os.environ["PATH"]}',
      'FAKE_SLURM': str(cluster.folder),
      'SLURM_JOB_ID': str(self.id),
      'SLURM_SUBMIT_DIR': str(cwd),
      'SLURM_JOB_NUM_NODES': str(nodes),
      'SLURM_NNODES': str(nodes),
      'SLURM_JOB_NODELIST': names,
      'SLURM_NTASKS': str(nodes * tasks),
      'SLURM_NTASKS_PER_NODE': str(tasks),
      'SLURM_CPUS_PER_TASK': self.options['cpus-per-task'],
      # The batch shell is task 0 of a step of its own.
      'SLURM_PROCID': '0',
      'SLURM_LOCALID': '0',
      'SLURM_NODEID': '0',
    }

  def start(self):
    """Starts the script, as at first or after a requeue."""
    for name in ('requeued', 'tasks'):
      (self._cluster.folder / name).unlink(missing_ok=True)
    self._cluster.write('state', 'RUNNING\n')
    environ = dict(self._environ)
    if self.starts:
      environ['SLURM_RESTART_COUNT'] = str(self.starts)
    self.starts += 1
    append = self.options.get('open-mode') == 'append'
    with self.output.open('a' if append else 'w') as output:
      self.process = subprocess.Popen(
        self._command,
        cwd='/',
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environ,
      )

  def tasks(self):
    """Returns the ids of the running step's processes."""
    return [int(pid) for pid in self._cluster.read('tasks').split()]

  def warn(self):
    """Sends what --signal asks for, to whom it asks for."""
    to_batch, name, seconds = re.fullmatch(
      r'(B:)?(\w+)@(\d+)', self.options['signal']
    ).groups()
    assert int(seconds) >= 60
    number = signal.Signals[f'SIG{name}']
    if to_batch:
      self.process.send_signal(number)
    else:
      for task in self.tasks():
        os.kill(task, number)

  def cancel(self):
    """As scancel: steps and script get SIGTERM, the job is completing."""
    self._cluster.write('state', 'COMPLETING\n')
    for task in [*self.tasks(), self.process.pid]:
      with contextlib.suppress(ProcessLookupError):
        os.kill(task, signal.SIGTERM)

  def wait(self, timeout=900):
    """Returns the script's exit code and whether it asked to be requeued."""
    code = self.process.wait(timeout)
    return code, (self._cluster.folder / 'requeued').exists()

  def kill(self):
    """Ends everything of the job that still runs."""
    for pid in [*self.tasks(), self.process.pid]:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    self.process.wait()


def directives(script: pathlib.Path) -> dict[str, str]:
  """Returns {name: value} of the #SBATCH lines before the first command."""
  found = {}
  for line in script.read_text().splitlines():
    if line.startswith('#SBATCH '):
      for word in shlex.split(line.removeprefix('#SBATCH ')):
        name, _, value = word.removeprefix('--').partition('=')
        found[name] = value
    elif line and not line.startswith('#'):
      break
  return found


def job_id() -> int:
  """Returns an id for which the port that jax makes of it is free."""
  for number in range(os.getpid() % 4096, 1 << 20):
    with socket.socket() as free:
      try:
        free.bind(('', number % 2**12 + 65536 - 2**12))
        return number
      except OSError:
        continue
  raise RuntimeError('no free port')


def srun(arguments: list[str]) -> int:
  """Runs a program as the tasks of a step; returns the largest exit code."""
  while arguments[0].startswith('--'):
    arguments = arguments[1:]
  nodes = int(os.environ['SLURM_JOB_NUM_NODES'])
  tasks = int(os.environ['SLURM_NTASKS_PER_NODE'])
  step = {
    'SLURM_STEP_ID': '0',
    'SLURM_STEP_NODELIST': os.environ['SLURM_JOB_NODELIST'],
    'SLURM_STEP_NUM_NODES': str(nodes),
    'SLURM_STEP_NUM_TASKS': str(nodes * tasks),
    'SLURM_STEP_TASKS_PER_NODE': f'{tasks}(x{nodes})'
    if nodes > 1
    else f'{tasks}',
  }
  started = [
    subprocess.Popen(
      arguments,
      start_new_session=True,
      env=os.environ
      | step
      | {
        'SLURM_PROCID': str(rank),
        'SLURM_NODEID': str(rank // tasks),
        'SLURM_LOCALID': str(rank % tasks),
      },
    )
    for rank in range(nodes * tasks)
  ]

  def forward(number, frame):
    del frame
    for process in started:
      process.send_signal(number)

  for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, forward)
  folder = pathlib.Path(os.environ['FAKE_SLURM'])
  ids = ' '.join(str(process.pid) for process in started)
  (folder / 'tasks.new').write_text(ids)
  (folder / 'tasks.new').replace(folder / 'tasks')
  codes = [process.wait() for process in started]
  return max(code if code >= 0 else 128 - code for code in codes)


if __name__ == '__main__':
  sys.exit(srun(sys.argv[1:]))
