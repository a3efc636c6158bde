"""The locked requirements satisfy the bounds, and every file has a hash."""

import functools
import importlib.metadata
import importlib.util
import itertools
import re
import shutil
import subprocess

from conftest import ROOT
from packaging import requirements
from packaging import utils
import pytest

_spec = importlib.util.spec_from_file_location(
  'launch_packages', ROOT / 'launch/packages.py'
)
packages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(packages)

PYTHONS = ('3.11', '3.12', '3.13')
CASES = list(itertools.product(packages.ACCELERATORS, PYTHONS))


@functools.cache
def entries(accelerator):
  """Returns [(Requirement, its hashes)] of a lock."""
  text = (ROOT / 'requirements' / f'{accelerator}.lock').read_text()
  lines = [line for line in text.splitlines() if not line.startswith('#')]
  found = []
  for entry in '\n'.join(lines).replace('\\\n', ' ').splitlines():
    required, *hashes = entry.split(' --hash=')
    found.append((requirements.Requirement(required), hashes))
  return found


def versions(accelerator, python):
  """Returns {name: exact version} on Linux; a name has one version at most."""
  environment = {
    'python_version': python,
    'python_full_version': f'{python}.1',
    'sys_platform': 'linux',
    'platform_machine': 'x86_64',
    'platform_python_implementation': 'CPython',
    'implementation_name': 'cpython',
  }
  found = {}
  for required, _ in entries(accelerator):
    if required.marker and not required.marker.evaluate(environment):
      continue
    (pin,) = required.specifier
    name = utils.canonicalize_name(required.name)
    assert pin.operator == '==' and name not in found, required
    found[name] = pin.version
  return found


@pytest.mark.parametrize('accelerator', packages.ACCELERATORS)
def test_every_line_is_exact_and_hashed(accelerator):
  assert len(entries(accelerator)) > 80
  for required, hashes in entries(accelerator):
    assert [pin.operator for pin in required.specifier] == ['=='], required
    assert not required.url and not required.extras
    assert hashes, required
    for value in hashes:
      assert re.fullmatch('sha256:[0-9a-f]{64}', value.strip())
  text = (ROOT / 'requirements' / f'{accelerator}.lock').read_text()
  # No other index than the one that pip is set up with.
  assert not re.search('://|--(extra-)?index|--find-links', text)


@pytest.mark.parametrize('accelerator, python', CASES)
def test_locks_satisfy_the_bounds(accelerator, python):
  locked = versions(accelerator, python)
  for line in packages.bounds(accelerator):
    bound = requirements.Requirement(line)
    if bound.marker and not bound.marker.evaluate(
      {'sys_platform': 'linux', 'platform_machine': 'x86_64'}
    ):
      continue
    version = locked[utils.canonicalize_name(bound.name)]
    assert version in bound.specifier, line


@pytest.mark.parametrize('accelerator, python', CASES)
def test_jax_and_its_accelerator(accelerator, python):
  locked = versions(accelerator, python)
  # jax 0.11 dropped Python 3.11.
  assert locked['jax'].startswith('0.10.2' if python == '3.11' else '0.12.')
  assert locked['jaxlib'] == locked['jax']
  for cuda in ('cuda12', 'cuda13'):
    plugin = locked.get(f'jax-{cuda}-plugin')
    assert plugin == (locked['jax'] if accelerator == cuda else None)
  assert ('libtpu' in locked) == (accelerator == 'tpu')


@pytest.mark.parametrize('python', PYTHONS)
def test_accelerators_share_their_other_versions(python):
  cpu = versions('cpu', python)
  for accelerator in packages.ACCELERATORS:
    assert cpu.items() <= versions(accelerator, python).items()


@pytest.mark.parametrize('python', PYTHONS)
def test_beam_can_be_added(python):
  """The locks leave it out, but pip must be able to install it beside them."""
  try:
    needs = importlib.metadata.requires('apache-beam')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip("Beam's metadata is not here: apache-beam is not installed")
  locked = versions('cpu', python)
  for line in needs:
    bound = requirements.Requirement(line)
    name = utils.canonicalize_name(bound.name)
    environment = {'python_version': python, 'extra': ''}
    if name in locked and (
      not bound.marker or bound.marker.evaluate(environment)
    ):
      assert locked[name] in bound.specifier, line


@pytest.mark.parametrize('accelerator', packages.ACCELERATORS)
def test_locks_are_made_from_these_bounds(accelerator, monkeypatch):
  monkeypatch.setattr(packages.platform, 'system', lambda: 'Linux')
  monkeypatch.setattr(packages.platform, 'machine', lambda: 'x86_64')
  text = (ROOT / 'requirements' / f'{accelerator}.lock').read_text()
  # If this fails: bash launch/lock.sh.
  assert packages.why_not('a.lock', text, accelerator) is None
  other = packages.ACCELERATORS[accelerator == 'cpu']
  assert 'not made from' in packages.why_not('a.lock', text, other)
  assert packages.why_not('a.lock', None, other) == 'there is no a.lock'
  monkeypatch.setattr(packages.platform, 'machine', lambda: 'aarch64')
  assert 'this is Linux aarch64' in packages.why_not('a', text, accelerator)


@pytest.mark.slow
def test_lock_sh_makes_these_locks(tmp_path):
  for name in ('launch', 'requirements'):
    shutil.copytree(ROOT / name, tmp_path / name)
  for name in ('requirements.txt', 'pyproject.toml'):
    shutil.copy(ROOT / name, tmp_path / name)
  done = subprocess.run(
    ['bash', tmp_path / 'launch/lock.sh'],
    capture_output=True,
    text=True,
    check=False,
  )
  if 'Could not find a version' in done.stderr:
    pytest.skip('no package index answers')
  assert done.returncode == 0, done.stderr
  for accelerator in packages.ACCELERATORS:
    name = f'requirements/{accelerator}.lock'
    assert (tmp_path / name).read_text() == (ROOT / name).read_text()
