"""launch/tpu.sh with a gcloud, a trainer and workers that are this machine.

The fake gcloud runs what is sent by ssh, so the worker's side is the real one;
only Python is a stub, as in launch_test.py.
"""

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
import readme_test

pytestmark = pytest.mark.skipif(
  not all(map(shutil.which, ('git', 'flock', 'setsid', 'tar'))),
  reason='needs git and what a TPU VM has: flock, setsid, GNU tar',
)

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
      **self.command(*arguments, **environ), capture_output=True, timeout=60
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


def run_arguments(*options, trainer=TRAINER):
  return ('run', *SLICE, '--type', 'v5litepod-8', *options, '--', *trainer)


@pytest.fixture
def cloud(tmp_path):
  cloud = Cloud(tmp_path)
  yield cloud
  for file in cloud.folder.glob('machine-*/*/vdm_runs/*/*pid'):
    # Processes of this test: their folder is the test's own.
    pid = int(file.read_text())
    environ = pathlib.Path(f'/proc/{pid}/environ')
    if environ.exists() and os.fspath(cloud.folder).encode() in (
      environ.read_bytes()
    ):
      os.kill(pid, signal.SIGKILL)


def test_run_from_request_to_deletion(cloud):
  result = cloud.run([0], '--spot', '--project', 'mine')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete']
  create = next(x for x in cloud.lines('calls') if 'resources create' in x)
  for word in (
    *('demo', '--node-id=demo', '--accelerator-type=v5litepod-8', '--spot'),
    *('--runtime-version=v2-alpha-tpuv5-lite', '--zone=us-west4-a'),
    *('--project=mine', '--quiet'),
  ):
    assert word in create.split()
  # Spaces in arguments survive two shells.
  assert cloud.lines('starts') == [f'0|{"|".join(TRAINER)}|']
  for state in ('WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'):
    assert f'demo (v5litepod-8, us-west4-a): {state}.' in result.stdout
  (log,) = cloud.logs()
  assert log[-2:] == ['begin 1', 'end']
  assert '\nbegin 1\nend\n' in result.stdout
  assert 'still there' not in result.stdout
  # Set up by launch/setup.sh, once, for a TPU.
  pip = [x for x in cloud.lines('python_calls') if 'pip|install' in x]
  assert len(pip) == 1
  assert (cloud.home() / 'vdm/.venv/vdm_stamp').exists()
  packages = (cloud.home() / 'vdm/.venv/vdm_packages.txt').read_text()
  assert 'jax[tpu]' in packages or 'libtpu==' in packages


def test_preempted_run_resumes_on_a_new_slice(cloud):
  result = cloud.run(['preempt', 'preempt', 0], '--retries', '1')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete'] * 3
  assert cloud.lines('starts') == [f'0|{"|".join(TRAINER)}|'] * 3
  assert result.stdout.count('The slice was preempted') == 2
  assert 'Failure' not in result.stdout
  assert [log[-1] for log in cloud.logs()] == ['begin 1', 'begin 2', 'end']


def test_failing_while_being_preempted_is_no_failure(cloud):
  result = cloud.run(['dying', 0], '--retries', '1', VDM_TPU_SETTLE_SECONDS='3')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete'] * 2


def test_stopped_run_goes_on_on_the_same_slice(cloud):
  result = cloud.run([75, 75, 0], '--retries', '1')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete']
  assert len(cloud.lines('starts')) == 3
  # Nothing is installed again.
  assert sum('pip|install' in x for x in cloud.lines('python_calls')) == 1


def test_run_that_stops_at_once_again_and_again_is_given_up(cloud):
  result = cloud.run([75] * 9, VDM_TPU_SHORT_SECONDS='100')
  assert result.returncode == 1
  assert len(cloud.lines('starts')) == 3
  assert cloud.calls() == ['create', 'delete']


def test_three_failures_end_it(cloud):
  result = cloud.run([1, 1, 1, 0])
  assert result.returncode == 1
  assert len(cloud.lines('starts')) == 3
  assert 'Failure 3 of 3: the program exited with exit code 1' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_a_long_attempt_clears_the_failures(cloud):
  result = cloud.run([1, 1, 1, 1, 0], VDM_TPU_LONG_SECONDS='0')
  assert result.returncode == 0, result.stdout + result.stderr
  assert 'Failure 2' not in result.stdout


def test_mistake_in_the_command_ends_it_at_once(cloud):
  result = cloud.run([2, 0], '--keep')
  assert result.returncode == 2
  assert len(cloud.lines('starts')) == 1
  assert cloud.calls() == ['create']
  assert 'demo (v5litepod-8, us-west4-a) is still there, ACTIVE' in (
    result.stdout
  )


def test_restarted_machine_starts_the_same_command(cloud):
  result = cloud.run(['reboot', 0], '--retries', '1')
  assert result.returncode == 0, result.stdout + result.stderr
  assert 'A machine was restarted' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_lost_connection_is_made_again_and_no_line_is_lost(cloud):
  cloud.write('drop')
  process = start(cloud, ['wait'])
  wait_for(lambda: not (cloud.folder / 'drop').exists())
  time.sleep(1)  # The connection is lost in this time.
  cloud.write('go')
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 0, output
  assert sum(' follow ' in x for x in plain(cloud)) >= 2
  assert len(cloud.lines('starts')) == 1
  (log,) = cloud.logs()
  assert log[log.index('begin 1') :] == ['begin 1', 'end']


def test_interrupted_and_followed_again(cloud):
  process = start(cloud, ['wait', 1])
  wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  os.killpg(process.pid, signal.SIGINT)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 130
  assert 'is still there, ACTIVE: it costs money' in output
  delete = f'bash "{cloud.root}/launch/tpu.sh" delete --name demo'
  assert delete.replace('"', "'") in output

  process = start(cloud, ['wait', 1])
  wait_for(lambda: sum(' follow ' in x for x in plain(cloud)) == 2)
  cloud.write('go')
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 0, output
  assert 'which runs already' in output
  assert len(cloud.lines('starts')) == 1
  assert cloud.calls() == ['create', 'delete']
  (log,) = cloud.logs()
  assert log[log.index('begin 1') :] == ['begin 1', 'end']


def test_terminated_alone_leaves_no_gcloud_behind(cloud):
  process = start(cloud, ['wait'])
  wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  process.terminate()
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 143
  assert 'it costs money' in output
  (gcloud,) = cloud.lines('followers')
  wait_for(lambda: not pathlib.Path(f'/proc/{gcloud}').exists())


def test_another_command_is_refused(cloud):
  process = start(cloud, ['wait'])
  wait_for(lambda: cloud.lines('starts'))
  other = cloud.run(['wait'], trainer=(*TRAINER, '--config.seed=1'))
  assert other.returncode == 2
  assert 'already runs another command or commit' in other.stderr
  cloud.write('go')
  process.communicate(timeout=60)
  assert process.returncode == 0
  assert len(cloud.lines('starts')) == 1


def test_stop_saves_and_keeps_the_slice(cloud):
  process = start(cloud, ['wait'])
  wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  status = cloud.call('status', *SLICE)
  assert 'Worker 0: running' in status.stdout
  result = cloud.call('stop', *SLICE)
  assert result.returncode == 0, result.stderr
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 75, output
  assert 'it costs money' in output
  assert cloud.calls() == ['create']
  assert 'Worker 0: stopped' in cloud.call('status', *SLICE).stdout
  # The same command again resumes there, then the slice goes.
  cloud.write('go')
  assert cloud.run(['wait', 0]).returncode == 0
  assert cloud.calls() == ['create', 'delete']


def test_several_workers(cloud):
  cloud.write('workers', '2')
  result = cloud.run([0])
  assert result.returncode == 0, result.stdout + result.stderr
  assert sorted(x[:2] for x in cloud.lines('starts')) == ['0|', '1|']
  for worker in range(2):
    (log,) = cloud.logs(worker)
    assert log[-2:] == ['begin 1', 'end']
  assert '\nbegin 1\n' in result.stdout
  assert '\n[1] begin 1\n' in result.stdout


def test_folder_on_the_worker_is_fetched_before_deletion(cloud):
  result = cloud.run(
    [0], trainer=('--config=configs/a b.py', '--workdir=runs/my run')
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert 'begins again from step 0' in result.stdout
  step = cloud.root / 'runs/tpu/demo/my run/step'
  assert step.read_text() == '1\n'
  assert cloud.calls() == ['create', 'delete']


def test_slice_stays_if_its_results_cannot_be_fetched(cloud, tmp_path):
  (tmp_path / 'file').write_text('')
  result = cloud.run(
    [0],
    *('--to', tmp_path / 'file'),
    trainer=('--config=configs/a b.py', '--workdir=runs/my run'),
  )
  assert 'Not deleted' in result.stdout
  assert cloud.calls() == ['create']


def test_small_commands(cloud, tmp_path):
  assert 'demo in us-west4-a: ABSENT' in cloud.call('status', *SLICE).stdout
  cloud.run([2], '--keep')
  assert 'begin 1\nend\n' in cloud.call('logs', *SLICE).stdout
  shell = cloud.call('ssh', *SLICE, '--', 'echo', 'a  b', "it's")
  assert shell.stdout == "a  b it's\n"
  target = tmp_path / 'fetched here'
  result = cloud.call('fetch', *SLICE, '--to', target, '--', 'runs/my run')
  assert result.returncode == 0, result.stderr
  assert (target / 'my run/step').exists()
  assert cloud.call('delete', *SLICE).returncode == 0
  assert cloud.calls() == ['create', 'delete']
  assert 'There is no demo' in cloud.call('delete', *SLICE).stdout


def test_secrets_are_in_no_command_line(cloud):
  secret = "a 'secret' $(touch x)"
  result = cloud.run([0], '--env', 'SECRET', SECRET=secret)
  assert result.returncode == 0, result.stdout + result.stderr
  assert f'SECRET={secret}' in cloud.lines('environment')
  assert 'secret' not in (cloud.folder / 'calls').read_text()
  assert secret not in result.stdout
  assert not list(cloud.home().glob('*env'))
  assert not list(cloud.home().glob('vdm_runs/*/env'))


def test_variable_that_breaks_cluster_detection_is_never_set(cloud):
  cloud.run([0])
  assert cloud.lines('environment')[-1] == '0'
  for file in (ROOT / 'launch').iterdir():
    assert 'TPU_SKIP_MDS_QUERY' not in file.read_text(), file


def test_command_before_each_start(cloud):
  before = 'echo "$PWD" >>"$HOME/before it"'
  result = cloud.run([75, 0], '--before', before)
  assert result.returncode == 0, result.stdout + result.stderr
  home = cloud.home()
  assert (home / 'before it').read_text() == f'{home}/vdm\n' * 2


def test_another_commit_replaces_the_files_of_the_first(cloud):
  cloud.run([2], '--keep')
  (cloud.root / 'configs/a b.py').rename(cloud.root / 'configs/c.py')
  cloud.commit()
  cloud.run([2, 0], trainer=('--config=configs/c.py', f'--workdir={WORKDIR}'))
  home = cloud.home()
  assert [x.name for x in (home / 'vdm/configs').iterdir()] == ['c.py']
  # What a run made stays.
  assert (home / 'vdm/runs/my run/step').exists()
  assert (home / 'vdm/.venv').exists()


def test_what_is_not_committed_is_named(cloud):
  (cloud.root / 'configs/a b.py').write_text('x = 1\n')
  (cloud.root / 'new.py').write_text('')
  result = cloud.run([0])
  assert result.returncode == 2
  assert 'a b.py' in result.stdout
  assert '?? new.py' in result.stdout
  assert not cloud.lines('calls')
  result = cloud.run([0], '--commit', 'HEAD')
  assert result.returncode == 0, result.stderr
  assert '?? new.py' in result.stdout
  assert (cloud.home() / 'vdm/configs/a b.py').read_text() == ''


def test_dry_run_calls_nothing(cloud):
  cloud.add('gcloud', '#!/bin/bash\ntouch "$FAKE_CLOUD/called"\nexit 99\n')
  result = cloud.run([0], '--spot', '--dry_run', '--before', 'echo hello')
  assert result.returncode == 0, result.stderr
  printed = [x for x in result.stdout.splitlines() if not x.startswith('#')]
  tasks = [
    *('list', 'create', 'list', ' status', 'archive', ' scp ', ' setup '),
    *(' before ', ' start ', ' follow ', 'list', ' status', 'delete'),
  ]
  assert len(printed) == len(tasks), result.stdout
  for line, task in zip(printed, tasks):
    assert task in line
  # They are words of a shell: it splits them as they were.
  start = next(x for x in printed if ' start ' in x)
  inner = subprocess.run(
    ['bash', '-c', f'printf "%s\\n" {start}'], capture_output=True, text=True
  )
  command = next(
    x for x in inner.stdout.splitlines() if x.startswith('--command=')
  )
  assert f"--workdir '{WORKDIR}'" in command
  for task in ('status', 'logs', 'ssh', 'stop', 'delete'):
    assert cloud.call(task, *SLICE, '--dry_run').returncode == 0
  assert not (cloud.folder / 'called').exists()
  assert not (cloud.root / 'runs').exists()


def test_request_that_fails_is_explained_and_given_up(cloud):
  result = cloud.run([0], FAKE_BECOMES='FAILED')
  assert result.returncode == 1
  assert 'The request failed: Quota exceeded.' in result.stdout
  # It would count against the quota of requests.
  assert cloud.calls() == ['create', 'delete'] * 3


def test_slice_that_never_answers_is_given_up(cloud):
  cloud.write('mute')
  result = cloud.run([0])
  assert result.returncode == 1
  assert 'No answer over ssh (10 of 10)' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_failing_installation_is_counted(cloud):
  cloud.add('python3.13', FAKE.replace('FAKE_OFFLINE:-', 'FAKE_OFFLINE:-yes'))
  result = cloud.run([0])
  assert result.returncode == 1
  assert 'Failure 3 of 3: installing failed' in result.stdout
  assert cloud.calls() == ['create', 'delete']


@pytest.mark.parametrize(
  'words',
  [
    pytest.param(words, id=f'{page.name}: {" ".join(words[2:])}')
    for page in readme_test.PAGES
    for words in readme_test.commands(page)
    if words[1] == 'launch/tpu.sh' and words[2] != 'ssh'
  ],
)
def test_documented_commands_are_understood(cloud, words):
  shutil.copytree(ROOT / 'configs', cloud.root / 'configs', dirs_exist_ok=True)
  cloud.commit()
  words = [words[2], '--dry_run', *words[3:]]
  result = cloud.call(*words)
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('walk',), 'no command walk'),
    (('run', '--name', 'demo'), 'Name the zone'),
    (('run', '--zone', 'z', '--name', 'My Slice'), '--name=My Slice'),
    (('run', *SLICE), 'Name the type'),
    (('run', *SLICE, '--type', 'tpu7x-8'), 'docs/launch.md#gke'),
    (('run', *SLICE, '--type', 'v5e-8'), '--type=v5e-8 is unknown'),
    (('run', *SLICE, '--type'), '--type needs a value'),
    (('run', *SLICE, '--tpye', 'x'), 'no option --tpye'),
    (('run', *SLICE, '--type=v4-8'), '--workdir gs://'),
    (('run', *SLICE, '--type=v4-8', 'configs/a b.py'), 'follow --'),
    (run_arguments('--retries', '0'), '--retries=0'),
    (run_arguments('--commit', 'nowhere'), 'nowhere is not a commit'),
    (run_arguments('--env', 'ABSENT'), '--env=ABSENT is not set'),
    (
      run_arguments(trainer=('--config=no.py', '--workdir=gs://b/a')),
      'no.py is not in commit',
    ),
    (('fetch', *SLICE), 'Name one folder'),
  ],
)
def test_mistakes_are_one_sentence(cloud, arguments, words):
  result = cloud.call(*arguments)
  assert result.returncode == 2
  assert words in result.stderr
  assert result.stderr.count('\n') == 1
  assert not cloud.lines('calls')


def test_help_needs_nothing(cloud):
  (cloud.bin / 'gcloud').unlink()
  result = cloud.call('--help', PATH='/usr/bin:/bin')
  assert result.returncode == 0
  assert '--before CMD' in result.stdout


def test_newer_python_is_installed_where_the_image_has_an_old_one(cloud):
  """Without pip at first, and with apt's lock held."""
  (cloud.bin / 'python3.13').rename(cloud.bin / 'newer')
  cloud.add('sleep', '#!/bin/bash\nexec /bin/sleep 0.01\n')
  cloud.add(
    'sudo',
    """#!/bin/bash
echo "$*" >>"$FAKE_CLOUD/sudo"
case $* in
  *update) [ "$(grep -c update "$FAKE_CLOUD/sudo")" -gt 2 ] ;;
  *install*) touch "$FAKE_CLOUD/pip" ;;
esac
""",
  )
  old = f"""#!/bin/bash
case $* in
  '-m pip --version') [ -f "$FAKE_CLOUD/pip" ] ;;
  '-m pip install'*) cat "${{@: -1}}" >"$FAKE_CLOUD/uv" ;;
  '-m uv python find'*) echo '{cloud.bin}/newer' ;;
  '-m uv python install'*) ;;
  *) exit 1 ;;
esac
"""
  for name in ('python3.13', 'python3.12', 'python3.11'):
    cloud.add(name, '#!/bin/bash\nexit 1\n')
  cloud.add('python3', old)
  result = cloud.run([0])
  assert result.returncode == 0, result.stdout + result.stderr
  assert [x.split()[-1] for x in cloud.lines('sudo')] == [
    *['update'] * 3,
    'python3-pip',
  ]
  assert re.fullmatch(r'uv==[\d.]+ --hash=sha256:\w{64}', *cloud.lines('uv'))
  assert len(cloud.lines('starts')) == 1


def start(cloud, plan):
  cloud.write('plan', '\n'.join(map(str, plan)))
  return subprocess.Popen(
    **cloud.command(*run_arguments()),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
  )


def plain(cloud):
  """The calls of gcloud, with their spaces."""
  return [line.replace('\\', '') for line in cloud.lines('calls')]


def wait_for(condition):
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)
