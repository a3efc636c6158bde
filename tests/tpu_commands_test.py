"""launch/tpu.sh's other commands, its options and its --dry_run."""

import json
import os
import re
import shutil
import subprocess

from conftest import ROOT
import fake_cloud
import pytest
import readme_test

GCLOUD = shutil.which('gcloud')

pytestmark = fake_cloud.NEEDED


@pytest.fixture
def cloud(tmp_path):
  with fake_cloud.open_cloud(tmp_path) as cloud:
    yield cloud


@pytest.fixture(scope='module')
def idle_cloud(tmp_path_factory):
  """Of tests that start nothing; its clone has the real configurations."""
  cloud = fake_cloud.Cloud(tmp_path_factory.mktemp('idle'))
  shutil.copytree(ROOT / 'configs', cloud.root / 'configs', dirs_exist_ok=True)
  cloud.commit()
  return cloud


def test_small_commands(cloud, tmp_path):
  assert (
    'demo in us-west4-a: ABSENT'
    in cloud.call('status', *fake_cloud.SLICE).stdout
  )
  cloud.run([2], '--keep')
  assert 'begin 1\nend\n' in cloud.call('logs', *fake_cloud.SLICE).stdout
  shell = cloud.call('ssh', *fake_cloud.SLICE, '--', 'echo', 'a  b', "it's")
  assert shell.stdout == "a  b it's\n"
  target = tmp_path / 'fetched here'
  result = cloud.call(
    'fetch', *fake_cloud.SLICE, '--to', target, '--', 'runs/my run'
  )
  assert result.returncode == 0, result.stderr
  assert (target / 'my run/step').exists()
  assert cloud.call('delete', *fake_cloud.SLICE).returncode == 0
  assert cloud.calls() == ['create', 'delete']
  assert 'There is no demo' in cloud.call('delete', *fake_cloud.SLICE).stdout


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
    'list',
    'create',
    'list',
    ' status',
    'archive',
    ' scp ',
    ' setup ',
    ' before ',
    ' start ',
    ' follow ',
    'list',
    ' status',
    'delete',
  ]
  assert len(printed) == len(tasks), result.stdout
  for line, task in zip(printed, tasks):
    assert task in line
  # They are words of a shell: it splits them as they were.
  line = next(x for x in printed if ' start ' in x)
  inner = subprocess.run(
    ['bash', '-c', f'printf "%s\\n" {line}'],
    capture_output=True,
    text=True,
  )
  command = next(
    x for x in inner.stdout.splitlines() if x.startswith('--command=')
  )
  assert f"--workdir '{fake_cloud.WORKDIR}'" in command
  for task in ('status', 'logs', 'ssh', 'stop', 'delete'):
    assert cloud.call(task, *fake_cloud.SLICE, '--dry_run').returncode == 0
  assert not (cloud.folder / 'called').exists()
  assert not (cloud.root / 'runs').exists()


@pytest.mark.parametrize(
  'words',
  [
    pytest.param(words, id=f'{page.name}: {" ".join(words[2:])}')
    for page in readme_test.PAGES
    for words in readme_test.commands(page)
    if words[1] == 'launch/tpu.sh'
  ],
)
def test_documented_commands_are_understood(idle_cloud, words):
  result = idle_cloud.call(words[2], '--dry_run', *words[3:])
  assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not GCLOUD, reason='gcloud is not installed')
def test_gcloud_knows_every_flag(idle_cloud, tmp_path):
  """Of the commands of a run and of docs/launch.md; gcloud only parses them."""
  options = (
    '--spot',
    '--project',
    'mine',
    '--service_account',
    'a@b',
    '--dry_run',
    '--before',
    "echo 'a  b'",
    '--env',
    'SECRET',
    '--create_flag=--internal-ips',
    '--ssh_flag=--internal-ip',
  )
  result = idle_cloud.call(*fake_cloud.run_arguments(*options), SECRET='x')
  page = (ROOT / 'docs/launch.md').read_text()
  blocks = re.findall(r'```sh\n(.*?)```', page, re.DOTALL)
  lines = '\n'.join([result.stdout, *blocks]).replace('\\\n', ' ').splitlines()
  commands = [line for line in lines if line.startswith('gcloud ')]
  assert sum(' tpus ' in command for command in commands) >= 12
  wrong = 'gcloud compute tpus tpu-vm ssh demo --no-such-flag'
  file = tmp_path / 'commands.json'
  file.write_text(
    json.dumps([{'command_string': x} for x in [*commands, wrong]])
  )
  result = subprocess.run(
    [GCLOUD, 'meta', 'lint-gcloud-commands', f'--commands-file={file}'],
    env={
      'PATH': os.environ['PATH'],
      'CLOUDSDK_CONFIG': os.fspath(tmp_path / 'gcloud'),
      'CLOUDSDK_CORE_CHECK_GCE_METADATA': 'false',
      'CLOUDSDK_CORE_DISABLE_USAGE_REPORTING': 'true',
    },
    capture_output=True,
    text=True,
    timeout=fake_cloud.TIMEOUT,
  )
  if not result.stdout:
    pytest.skip(f'This gcloud has no linter: {result.stderr[:200]}')
  answers = json.loads(result.stdout)
  refused = [x['command_string'] for x in answers if not x['success']]
  assert refused == [wrong], result.stdout


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('walk',), 'no command walk'),
    (('run', '--name', 'demo'), 'Name the zone'),
    (('run', '--zone', 'z', '--name', 'My Slice'), '--name=My Slice'),
    (('run', *fake_cloud.SLICE), 'Name the type'),
    (('run', *fake_cloud.SLICE, '--type', 'tpu7x-8'), 'docs/launch.md#gke'),
    (('run', *fake_cloud.SLICE, '--type', 'v5e-8'), '--type=v5e-8 is unknown'),
    (('run', *fake_cloud.SLICE, '--type'), '--type needs a value'),
    (('run', *fake_cloud.SLICE, '--tpye', 'x'), 'no option --tpye'),
    (('run', *fake_cloud.SLICE, '--type=v4-8'), '--workdir gs://'),
    (('run', *fake_cloud.SLICE, '--type=v4-8', 'configs/a b.py'), 'follow --'),
    (fake_cloud.run_arguments('--retries', '0'), '--retries=0'),
    (
      fake_cloud.run_arguments('--commit', 'nowhere'),
      'nowhere is not a commit',
    ),
    (fake_cloud.run_arguments('--env', 'ABSENT'), '--env=ABSENT is not set'),
    (
      fake_cloud.run_arguments(
        trainer=('--config=no.py', '--workdir=gs://b/a')
      ),
      'no.py is not in commit',
    ),
    (('fetch', *fake_cloud.SLICE), 'Name one folder'),
  ],
)
def test_mistakes_are_one_sentence(idle_cloud, arguments, words):
  result = idle_cloud.call(*arguments)
  assert result.returncode == 2
  assert words in result.stderr
  assert result.stderr.count('\n') == 1
  assert not idle_cloud.lines('calls')


def test_a_secret_in_the_place_of_its_name_is_not_printed(idle_cloud):
  arguments = fake_cloud.run_arguments('--env', 'HF_TOKEN=hush')
  result = idle_cloud.call(*arguments, HF_TOKEN='hush')
  assert result.returncode == 2
  assert result.stderr == (
    '--env takes the name of a variable, without its value.\n'
  )
  assert 'hush' not in result.stdout


def test_help_needs_nothing(cloud):
  (cloud.bin / 'gcloud').unlink()
  result = cloud.call('--help', PATH='/usr/bin:/bin')
  assert result.returncode == 0
  assert '--before CMD' in result.stdout
