"""The launch scripts as black boxes: fake Pythons on PATH, no network."""

import os
import pathlib
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from conftest import ROOT
import pytest

# Logs its arguments, one call a line. Short programs and launch/packages.py run
# in a real Python, `-m venv` leaves a copy of this script, and nothing else
# happens.
FAKE = f"""#!/bin/bash
if [ "$1" = -c ] || [ "$1" = - ]; then
  case "$2" in
    *ensurepip*) [ -z "${{FAKE_NO_VENV:-}}" ] ;;
    *version_info*) [ -z "${{FAKE_OLD:-}}" ] ;;
    *) exec {shlex.quote(sys.executable)} "$@" ;;
  esac
  exit
fi
case "$1" in */packages.py) exec {shlex.quote(sys.executable)} "$@" ;; esac
printf '%s|' "$@" >>"$FAKE_LOG"; echo >>"$FAKE_LOG"
case "$2" in
  venv)
    sleep "${{FAKE_SECONDS:-0}}"
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    ;;
  pip)
    if [ "$3" = install ] && [ -n "${{FAKE_OFFLINE:-}}" ]; then
      echo 'pip: no network' >&2
      exit 1
    fi
    ;;
  vdm.main) exit "${{FAKE_EXIT:-0}}" ;;
esac
"""


class Machine:
  """A clean clone, in a folder with a space, and what is on PATH."""

  def __init__(self, folder: pathlib.Path):
    self.root = folder / 'a clone'
    self.bin = folder / 'bin'
    self.log = folder / 'log'
    shutil.copytree(ROOT / 'launch', self.root / 'launch')
    shutil.copytree(ROOT / '.ci', self.root / '.ci')
    shutil.copytree(ROOT / 'requirements', self.root / 'requirements')
    for name in ('requirements.txt', 'pyproject.toml'):
      shutil.copy(ROOT / name, self.root / name)
    self.bin.mkdir()
    programs = 'bash cat cp dirname env mkdir mv nproc rm rmdir sleep uname'
    for name in programs.split():
      if path := shutil.which(name):  # macOS has no nproc.
        (self.bin / name).symlink_to(path)
    self.add('python3.12', FAKE)

  def add(self, name, text):
    path = self.bin / name
    path.write_text(text)
    path.chmod(0o755)

  def command(self, script, *arguments, **environ):
    return {
      'args': [self.bin / 'bash', self.root / script, *arguments],
      'cwd': self.root.parent,
      'env': {
        'PATH': os.fspath(self.bin),
        'FAKE_LOG': os.fspath(self.log),
        'VDM_ACCELERATOR': 'cpu',
        **environ,
      },
      'text': True,
    }

  def run(self, script, *arguments, **environ):
    """Runs a script; returns its result and the calls of Python it made."""
    self.log.write_text('')
    result = subprocess.run(
      **self.command(script, *arguments, **environ),
      capture_output=True,
      timeout=60,
    )
    return result, self.calls()

  def start(self, script, **environ):
    """Starts a script, in a session of its own that Ctrl-C may end."""
    return subprocess.Popen(
      **self.command(script, **environ),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
      # A shell that starts the tests in the background has it ignored.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

  def calls(self):
    return self.log.read_text().splitlines() if self.log.exists() else []

  def locks(self):
    return [path.name for path in self.root.glob('.venv.lock*')]

  def packages(self):
    text = (self.root / '.venv/vdm_packages.txt').read_text()
    return text.split('\n')


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


def is_install(call):
  return call.startswith('-m|pip|install|')


def test_first_start_installs_and_second_does_not(machine):
  result, calls = machine.run('launch/local.sh', '--workdir', 'my runs/a')
  assert result.returncode == 0, result.stderr
  assert calls[0].startswith('-m|venv|')
  assert sum(map(is_install, calls)) == 1
  assert calls[-1] == '-m|vdm.main|--workdir|my runs/a|'
  names = {line.partition('==')[0] for line in machine.packages()}
  assert {'jax', 'grain', 'pytest'} <= names

  result, calls = machine.run('launch/local.sh', '--config', 'configs/a.py')
  assert result.returncode == 0, result.stderr
  assert calls == ['-m|pip|--version|', '-m|vdm.main|--config|configs/a.py|']
  assert re.fullmatch(
    r'VDM_ACCELERATOR=cpu: jax on CPU, \d+ cores\.\n', result.stdout
  )


LOCKED = pytest.mark.skipif(
  (platform.system(), platform.machine()) != ('Linux', 'x86_64'),
  reason='requirements/ is for Linux on x86_64',
)


@LOCKED
def test_locked_versions_are_installed(machine):
  machine.run('launch/local.sh', VDM_ACCELERATOR='cuda13')
  locked = (ROOT / 'requirements/cuda13.lock').read_text()
  assert '\n'.join(machine.packages()) == locked
  result, _ = machine.run('launch/local.sh', VDM_ACCELERATOR='cuda12')
  assert 'pip chooses' not in result.stdout
  assert any(
    package.startswith('jax-cuda12-plugin==') for package in machine.packages()
  )


def test_without_a_lock_pip_chooses(machine):
  shutil.rmtree(machine.root / 'requirements')
  result, calls = machine.run('launch/local.sh')
  assert sum(map(is_install, calls)) == 1
  assert 'pip chooses the versions: ' in result.stdout
  packages = machine.packages()
  assert 'jax' in packages
  assert 'numpy>=2.1,<2.5' in packages
  assert any(package.startswith('pytest>=') for package in packages)


def test_setup_by_itself_installs_and_starts_nothing(machine):
  result, calls = machine.run('launch/setup.sh')
  assert result.returncode == 0, result.stderr
  assert sum(map(is_install, calls)) == 1
  assert not any('vdm.main' in call for call in calls)


def test_both_scripts_share_the_environment(machine):
  machine.run('launch/local.sh')
  result, calls = machine.run('launch/test.sh', '-m', 'slow', 'tests/a b.py')
  assert result.returncode == 0, result.stderr
  assert calls == [
    '-m|pip|--version|',
    '-m|ruff|check|--quiet|',
    '-m|ruff|format|--check|--quiet|',
    '-m|pytest|-m|slow|tests/a b.py|',
  ]
  assert os.access(ROOT / '.ci/run', os.X_OK)
  _, calls = machine.run('.ci/run')
  assert calls[-1] == '-m|pytest|-n|2|--dist|loadfile|'


def test_new_requirements_and_accelerators_install_again(machine):
  machine.run('launch/local.sh')
  with (machine.root / 'requirements.txt').open('a') as file:
    file.write('another>=1,<2\n')
  result, calls = machine.run('launch/local.sh')
  assert sum(map(is_install, calls)) == 1
  # A lock that does not know them is not used.
  assert 'pip chooses the versions: ' in result.stdout
  assert 'another>=1,<2' in machine.packages()
  _, calls = machine.run('launch/local.sh', VDM_ACCELERATOR='cuda12')
  assert sum(map(is_install, calls)) == 1
  assert 'jax[cuda12]' in machine.packages()


def test_interrupted_install_is_done_again(machine):
  result, calls = machine.run('launch/local.sh', FAKE_OFFLINE='1')
  assert result.returncode == 1
  assert 'Installing failed' in result.stderr
  assert not any('vdm.main' in call for call in calls)
  result, calls = machine.run('launch/local.sh')
  assert result.returncode == 0
  assert sum(map(is_install, calls)) == 1
  # .venv itself was whole.
  assert not any(call.startswith('-m|venv|') for call in calls)


def test_starts_at_once_install_once(machine):
  starts = [
    machine.start('launch/local.sh', FAKE_SECONDS='0.5') for _ in range(3)
  ]
  said = [x.communicate(timeout=60)[0] for x in starts]
  assert [x.returncode for x in starts] == [0, 0, 0], said
  calls = machine.calls()
  assert sum(call.startswith('-m|venv|') for call in calls) == 1
  assert sum(map(is_install, calls)) == 1
  assert calls.count('-m|vdm.main|') == 3
  assert sum('Another start installs' in x for x in said) == 2
  assert not machine.locks()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_start_lets_the_next_one_install(machine, number):
  first = machine.start('launch/local.sh', FAKE_SECONDS='30')
  wait_for(lambda: machine.calls())
  assert machine.locks() == ['.venv.lock']
  os.killpg(first.pid, number)
  first.communicate(timeout=60)
  assert first.returncode != 0
  assert not machine.locks()


def test_killed_start_lets_the_next_one_install(machine):
  first = machine.start('launch/local.sh', FAKE_SECONDS='30')
  wait_for(lambda: machine.calls())
  os.killpg(first.pid, signal.SIGKILL)
  first.communicate(timeout=60)
  assert machine.locks() == ['.venv.lock']
  # Two of them see it.
  starts = [machine.start('launch/local.sh') for _ in range(2)]
  said = [x.communicate(timeout=60)[0] for x in starts]
  assert [x.returncode for x in starts] == [0, 0], said
  assert sum(map(is_install, machine.calls())) == 1
  assert not machine.locks()


def test_failed_install_unlocks_and_ends(machine):
  result, calls = machine.run('launch/local.sh', FAKE_OFFLINE='1')
  assert result.returncode == 1
  assert calls and not any('vdm.main' in call for call in calls)
  assert not machine.locks()


def test_lock_that_stays_is_named(machine):
  lock = machine.root / '.venv.lock'
  lock.mkdir()
  (lock / 'holder').write_text('1 another-host\n')
  # Five minutes pass, then somebody deletes it.
  script = f"""#!/bin/bash
    printf x >>"$FAKE_LOG.slept"
    read -r slept <"$FAKE_LOG.slept" || [ ${{#slept}} -lt 301 ] ||
      rm -rf {shlex.quote(os.fspath(lock))}"""
  (machine.bin / 'sleep').unlink()
  machine.add('sleep', script)
  result, calls = machine.run('launch/local.sh')
  assert result.returncode == 0, result.stderr
  assert sum(map(is_install, calls)) == 1
  line = (
    'Process 1 of host another-host has held it for 5 minutes: if that is '
    f'gone, delete {lock}.'
  )
  assert result.stdout.splitlines().count(line) == 1


def test_traps_of_the_script_stay(machine):
  end = 'source "$1/launch/setup.sh"; trap "echo last" EXIT; setup >/dev/null'
  environ = {'FAKE_LOG': os.fspath(machine.log), 'VDM_ACCELERATOR': 'cpu'}
  assert call_setup(machine, f'true; {end}', **environ) == 'last'
  assert (machine.root / '.venv/vdm_stamp').exists()


def test_environment_made_by_hand_is_kept(machine):
  python = machine.root / '.venv/bin/python'
  python.parent.mkdir(parents=True)
  python.write_text(FAKE)
  python.chmod(0o755)
  (machine.bin / 'python3.12').unlink()
  result, calls = machine.run('launch/local.sh')
  assert result.returncode == 0, result.stderr
  assert sum(map(is_install, calls)) == 1
  assert not any(call.startswith('-m|venv|') for call in calls)


def test_videos_of_the_demo_or_of_what_is_named(machine):
  result, calls = machine.run('launch/sample.sh')
  assert result.returncode == 0, result.stderr
  assert sum(map(is_install, calls)) == 1
  assert calls[-1] == (
    '-m|vdm.sample|--num|8|--overwrite|--out|outputs/demo|'
    '--chain|colabs/cascade/key_frames,colabs/cascade/frames|'
  )
  _, calls = machine.run('launch/sample.sh', '--workdir', 'my runs/a')
  assert calls[-1] == '-m|vdm.sample|--workdir|my runs/a|'


def test_exit_code_of_the_command_is_kept(machine):
  result, _ = machine.run('launch/local.sh', FAKE_EXIT='75')
  assert result.returncode == 75


def wait_for(condition):
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def check_refused(result, calls, words):
  assert words in result.stderr
  assert result.stderr.count('\n') == 1
  assert result.returncode == 1
  assert not any('vdm.main' in call or 'pip' in call for call in calls)


def test_no_python(machine):
  (machine.bin / 'python3.12').unlink()
  result, calls = machine.run('launch/local.sh')
  check_refused(result, calls, 'No Python 3.11, 3.12 or 3.13 was found')


def test_old_python(machine):
  (machine.bin / 'python3.12').rename(machine.bin / 'python3')
  result, calls = machine.run('launch/test.sh', FAKE_OLD='1')
  check_refused(result, calls, 'No Python 3.11, 3.12 or 3.13 was found')


def test_python_without_venv(machine):
  result, calls = machine.run('launch/local.sh', FAKE_NO_VENV='1')
  check_refused(result, calls, 'python3.12 has no venv module')


def test_shims_that_do_not_run_are_passed_over(machine):
  machine.add('python3.13', '#!/bin/bash\necho "not installed" >&2\nexit 127\n')
  result, calls = machine.run('launch/local.sh')
  assert result.returncode == 0, result.stderr
  assert 'Making .venv with python3.12.' in result.stdout
  assert calls[-1] == '-m|vdm.main|'


def test_named_python(machine):
  machine.add('my python', FAKE)
  result, _ = machine.run(
    'launch/local.sh', VDM_PYTHON=os.fspath(machine.bin / 'my python')
  )
  assert result.returncode == 0, result.stderr
  assert 'my python' in result.stdout


def test_named_python_that_does_not_run(machine):
  result, calls = machine.run('launch/local.sh', VDM_PYTHON='/no/python')
  check_refused(result, calls, 'VDM_PYTHON=/no/python is not a Python')


def test_unknown_accelerator(machine):
  result, calls = machine.run('launch/local.sh', VDM_ACCELERATOR='gpu')
  check_refused(result, calls, 'it is cpu, cuda12, cuda13 or tpu')


@pytest.mark.parametrize(
  'gpus, accelerator',
  [
    ('535.183.01, 8.9', 'cuda12'),
    ('580.65.06, 9.0', 'cuda13'),
    ('590.44.01, 12.0\n590.44.01, 12.0', 'cuda13'),
    # Volta ended with CUDA 12.
    ('580.65.06, 7.0', 'cuda12'),
    ('580.65.06, 7.5', 'cuda13'),
    ('580.65.06, 9.0\n580.65.06, 6.1', 'cuda12'),
    ('580.65.06, [N/A]', 'cuda12'),
    ('', 'cpu'),
  ],
)
def test_gpus_choose_the_accelerator(machine, gpus, accelerator):
  machine.add('nvidia-smi', f"#!/bin/bash\nprintf '%s\\n' '{gpus}'\n")
  assert find_accelerator(machine, machine.root) == accelerator


def test_broken_driver_is_no_gpu(machine):
  machine.add('nvidia-smi', '#!/bin/bash\necho "failed to talk"\nexit 9\n')
  assert find_accelerator(machine, machine.root) == 'cpu'


@pytest.mark.parametrize(
  'device, accelerator',
  [
    ('accel0', 'tpu'),
    ('vfio/0', 'tpu'),
    # A host of virtual machines, and the accelerators of laptops.
    ('vfio/vfio', 'cpu'),
    ('accel/accel0', 'cpu'),
  ],
)
def test_devices_choose_the_accelerator(machine, tmp_path, device, accelerator):
  path = tmp_path / 'dev' / device
  path.parent.mkdir(parents=True)
  path.touch()
  assert find_accelerator(machine, tmp_path / 'dev') == accelerator


def test_macs_use_the_cpu(machine, tmp_path):
  (machine.bin / 'uname').unlink()
  machine.add('uname', '#!/bin/bash\necho Darwin\n')
  (tmp_path / 'dev').mkdir()
  (tmp_path / 'dev/accel0').touch()
  assert find_accelerator(machine, tmp_path / 'dev') == 'cpu'


def find_accelerator(machine, devices):
  return call_setup(machine, 'find_accelerator "$2"', devices)


def call_setup(machine, command, *arguments, **environ):
  """Returns what a function of launch/setup.sh prints."""
  result = subprocess.run(
    [
      machine.bin / 'bash',
      '-c',
      f'source "$1/launch/setup.sh" && {command}',
      '-',
      machine.root,
      *arguments,
    ],
    env={'PATH': os.fspath(machine.bin), **environ},
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  )
  return result.stdout.strip()


# Answers the query for both columns as nvidia-smi does.
SMI = """#!/bin/bash
case "$1" in
  --query-gpu=driver_version,compute_cap) column=2 ;;
  --query-gpu=driver_version,name) column=3 ;;
  *) exit 2 ;;
esac
while IFS='|' read -r driver capability name; do
  if [ $column = 2 ]; then name=$capability; fi
  echo "$driver, $name"
done <<<"$FAKE_GPUS"
"""
H100 = '580.65.06|9.0|NVIDIA H100 80GB HBM3'


@pytest.mark.parametrize(
  'gpus, environ, line',
  [
    (
      '\n'.join([H100] * 4),
      {},
      'Found 4 GPUs (NVIDIA H100 80GB HBM3, driver 580.65.06): jax[cuda13], '
      'one process.',
    ),
    (
      '535.1|8.9|NVIDIA L4',
      {},
      'Found 1 GPU (NVIDIA L4, driver 535.1): jax[cuda12], one process.',
    ),
    (
      '\n'.join([H100, '580.65.06|8.0|NVIDIA A100']),
      {'CUDA_VISIBLE_DEVICES': '1'},
      'Found 2 GPUs (NVIDIA H100 80GB HBM3, NVIDIA A100, driver 580.65.06, '
      'CUDA_VISIBLE_DEVICES=1): jax[cuda13], one process.',
    ),
    (
      H100,
      {'VDM_ACCELERATOR': 'cuda12'},
      'VDM_ACCELERATOR=cuda12: jax[cuda12], one process.',
    ),
  ],
)
def test_the_gpus_are_named_before_training(machine, gpus, environ, line):
  machine.add('nvidia-smi', SMI)
  settings = {'VDM_ACCELERATOR': '', 'FAKE_GPUS': gpus, **environ}
  result, calls = machine.run('launch/local.sh', **settings)
  assert calls[-1] == '-m|vdm.main|', result.stderr
  assert result.stdout.splitlines()[-1] == line


@pytest.mark.parametrize(
  'device, line',
  [
    ('accel3', 'Found a TPU (1 chips on this host): jax[tpu], one process.'),
    ('null', r'No accelerator found: jax on CPU, \d+ cores\.'),
  ],
)
def test_other_machines_are_named_too(machine, tmp_path, device, line):
  (tmp_path / 'dev').mkdir()
  (tmp_path / 'dev' / device).touch()
  described = call_setup(
    machine,
    'describe_machine "$(find_accelerator "$2")" "$2"',
    tmp_path / 'dev',
  )
  assert described == line or re.fullmatch(line, described)
