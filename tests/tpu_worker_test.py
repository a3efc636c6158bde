"""launch/tpu_worker.sh: what is done on the workers of a slice."""

import os
import re
import time

from conftest import ROOT
import fake_cloud
from launch_test import FAKE
import pytest

pytestmark = fake_cloud.NEEDED


@pytest.fixture
def cloud(tmp_path):
  with fake_cloud.open_cloud(tmp_path) as cloud:
    yield cloud


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


def test_workers_of_which_some_run_are_all_started_anew(cloud):
  cloud.write('workers', '2')
  cloud.run([2], '--keep')
  # Worker 1 is started by hand, and goes on.
  cloud.write('plan', '2\nwait\n0')
  command = (
    'bash',
    'tpu_worker.sh',
    'start',
    'by-hand',
    'x',
    *fake_cloud.TRAINER,
  )
  result = cloud.call('ssh', *fake_cloud.SLICE, '--worker', '1', '--', *command)
  assert result.returncode == 0, result.stderr
  # It has read its line of the plan.
  fake_cloud.wait_for((cloud.folder / 'waiting').exists)
  cloud.write('plan', '2\n0\n0')
  result = cloud.call(*fake_cloud.run_arguments())
  assert result.returncode == 0, result.stdout + result.stderr
  assert 'Only some workers run' in result.stdout
  assert [x[:2] for x in sorted(cloud.lines('starts'))] == (
    ['0|'] * 2 + ['1|'] * 3
  )


def test_stop_asks_once_and_ends_what_does_not_listen(cloud):
  process = fake_cloud.start(cloud, ['deaf'])
  fake_cloud.wait_for((cloud.folder / 'waiting').exists)
  for _ in range(2):  # gcloud repeats what it lost the connection of.
    assert cloud.call('stop', *fake_cloud.SLICE).returncode == 0
  fake_cloud.wait_for(lambda: cloud.lines('signals'))
  (stopped,) = cloud.home().glob('vdm_runs/*/stopped')
  os.utime(stopped, (time.time() - 400,) * 2)
  assert cloud.call('stop', *fake_cloud.SLICE).returncode == 0
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert cloud.lines('signals') == ['TERM']
  assert process.returncode == 75, output
  assert 'stopped after' in output


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
    '--to',
    tmp_path / 'file',
    trainer=('--config=configs/a b.py', '--workdir=runs/my run'),
  )
  assert 'Not deleted' in result.stdout
  assert cloud.calls() == ['create']


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
  cloud.run(
    [2, 0], trainer=('--config=configs/c.py', f'--workdir={fake_cloud.WORKDIR}')
  )
  home = cloud.home()
  assert [x.name for x in (home / 'vdm/configs').iterdir()] == ['c.py']
  # What a run made stays.
  assert (home / 'vdm/runs/my run/step').exists()
  assert (home / 'vdm/.venv').exists()


def test_code_that_cannot_be_sent_is_counted(cloud):
  cloud.add(
    'git', '#!/bin/bash\n[ "$3" != archive ] && exec /usr/bin/git "$@"\n'
  )
  result = cloud.run([0])
  assert result.returncode == 1
  assert 'Failure 3 of 3: sending the code failed' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_failing_installation_is_counted(cloud):
  cloud.add('python3.13', FAKE.replace('FAKE_OFFLINE:-', 'FAKE_OFFLINE:-yes'))
  result = cloud.run([0])
  assert result.returncode == 1
  assert 'Failure 3 of 3: installing failed' in result.stdout
  assert cloud.calls() == ['create', 'delete']


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
  assert re.search(
    r'uv==[\d.]+ .*\n +--hash=sha256:\w{64}',
    ((cloud.folder / 'uv').read_text()),
  )
  assert len(cloud.lines('starts')) == 1
