"""A cloud of one TPU slice for the tests of launch/tpu.sh: this machine.

The fake gcloud (fake_gcloud.sh) runs what is sent by ssh, so the worker's side
is the real one; only Python is a stub, as in launch_test.py, and the trainer
(fake_trainer.sh).
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

from conftest import ROOT
from launch_test import FAKE
import pytest

NEEDED = pytest.mark.skipif(
  not all(map(shutil.which, ('git', 'flock', 'setsid', 'tar'))),
  reason='needs git and what a TPU VM has: flock, setsid, GNU tar',
)
TIMEOUT = 120  # Seconds, of what takes one or two on an idle machine.
WORKDIR = 'gs://bucket/my runs/ucf101'
TRAINER = ('--config', 'configs/a b.py:smoke', '--workdir', WORKDIR)
SLICE = ('--name', 'demo', '--zone', 'us-west4-a')


class Cloud:
  """A clean clone in a folder with a space, and a cloud beside it."""

  def __init__(self, folder: pathlib.Path):
    self.root = folder / 'a clone'
    self.folder = folder / 'cloud'
    self.bin = folder / 'bin'
    for path in (self.root / 'configs', self.folder, self.bin):
      path.mkdir(parents=True)
    (self.root / 'configs/a b.py').write_text('')
    (self.root / '.gitignore').write_text('/runs/\n')
    shutil.copytree(ROOT / 'launch', self.root / 'launch')
    for name in ('requirements.txt', 'pyproject.toml', 'requirements'):
      if (ROOT / name).is_dir():
        shutil.copytree(ROOT / name, self.root / name)
      elif (ROOT / name).exists():
        shutil.copy(ROOT / name, self.root / name)
    self.git('init', '-q')
    self.commit()
    self.write('machines', '0')
    self.write('workers', '1')
    self.add('gcloud', (ROOT / 'tests/fake_gcloud.sh').read_text())
    self.add('curl', '#!/bin/bash\necho "$FAKE_WORKER"\n')
    trainer = f'exec bash "{ROOT}/tests/fake_trainer.sh"'
    python = re.sub(
      r'vdm\.main\) .*', f'vdm.main) shift 2; {trainer} "$@" ;;', FAKE
    )
    assert trainer in python
    self.add('python3.13', python)

  def add(self, name, text):
    path = self.bin / name
    path.write_text(text)
    path.chmod(0o755)

  def write(self, name, text=''):
    (self.folder / name).write_text(text + '\n')

  def lines(self, name):
    path = self.folder / name
    return path.read_text().splitlines() if path.exists() else []

  def git(self, *arguments):
    name = ('-c', 'user.name=a', '-c', 'user.email=a@b')
    subprocess.run(['git', '-C', self.root, *name, *arguments], check=True)

  def commit(self):
    self.git('add', '-A')
    self.git('commit', '-q', '-m', 'A commit')

  def command(self, *arguments, **environ):
    return {
      'args': ['bash', self.root / 'launch/tpu.sh', *arguments],
      'cwd': self.root.parent,
      'env': {
        'PATH': f'{self.bin}:/usr/bin:/bin',
        'HOME': os.fspath(self.root.parent),
        'FAKE_CLOUD': os.fspath(self.folder),
        'VDM_TPU_POLL_SECONDS': '0.05',
        'VDM_TPU_SETTLE_SECONDS': '0',
        'VDM_TPU_SHORT_SECONDS': '0',
        **environ,
      },
      'text': True,
    }

  def call(self, *arguments, **environ):
    return subprocess.run(
      **self.command(*arguments, **environ),
      capture_output=True,
      timeout=TIMEOUT,
    )

  def run(self, plan, *options, trainer=TRAINER, **environ):
    """Runs `tpu.sh run` with what the trainer does at each start."""
    self.write('plan', '\n'.join(map(str, plan)))
    return self.call(*run_arguments(*options, trainer=trainer), **environ)

  def calls(self):
    """What gcloud was asked for, without the questions."""
    words = [line.split() for line in self.lines('calls')]
    called = [f'{word[2]} {word[3]}' for word in words]
    return [
      call.split()[1]
      for call in called
      if call.startswith('queued-resources') and not call.endswith('list')
    ]

  def home(self, machine=1, worker=0):
    return self.folder / f'machine-{machine}' / str(worker)

  def logs(self, worker=0):
    """What tpu.sh kept of the workers' logs, one list of lines per attempt."""
    folder = self.root / 'runs/tpu/demo'
    files = sorted(folder.glob(f'*/worker-{worker}.log'), key=os.path.getmtime)
    return [file.read_text().splitlines() for file in files]


@contextlib.contextmanager
def open_cloud(folder: pathlib.Path) -> Iterator[Cloud]:
  """Yields a cloud in a folder; ends what still runs on its workers."""
  cloud = Cloud(folder)
  yield cloud
  for file in cloud.folder.glob('machine-*/*/vdm_runs/*/*pid'):
    # Processes of this test: their folder is the test's own. Any may end, and
    # its files go, between two of these calls.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
      pid = int(file.read_text())
      environ = pathlib.Path(f'/proc/{pid}/environ').read_bytes()
      if os.fspath(cloud.folder).encode() in environ:
        os.kill(pid, signal.SIGKILL)


def run_arguments(*options, trainer=TRAINER):
  return ('run', *SLICE, '--type', 'v5litepod-8', *options, '--', *trainer)


def start(cloud, plan, *options, **environ):
  cloud.write('plan', '\n'.join(map(str, plan)))
  command = cloud.command(*run_arguments(*options), **environ)
  # Tests that a shell has started in the background ignore Ctrl-C, as would all
  # that they start; no trap of bash changes that.
  command['args'] = ['env', '--default-signal=INT', *command['args']]
  return subprocess.Popen(
    **command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
  )


def plain(cloud):
  """The calls of gcloud, with their spaces."""
  return [line.replace('\\', '') for line in cloud.lines('calls')]


def wait_for(condition: Callable[[], bool]) -> None:
  end = time.monotonic() + TIMEOUT
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)
