"""What a command shows of its own and of its libraries' messages."""

import ast
import os
import platform
import subprocess
import sys
import types

from conftest import ROOT
import pytest

from vdm import __main__
from vdm.common import console

SCRIPT = """
import logging as standard
from absl import logging
from vdm.common import console
logging.use_absl_handler()
console.start()
logging.info('ours')
logger = logging.get_absl_logger()
for level, text in ((standard.INFO, 'chatter'), (standard.WARNING, 'trouble')):
  record = logger.makeRecord(
    'absl', level, '/x/orbax/save.py', 1, text, (), None)
  logger.handle(record)
"""


def test_libraries_are_heard_only_when_something_is_wrong():
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'ours' in done.stderr
  assert 'trouble' in done.stderr
  assert 'chatter' not in done.stderr


def test_banners_are_off_unless_somebody_wants_them():
  script = """
import os
import platform
from vdm.common import console
print([os.environ.get(name) for name in console.QUIET])
"""
  environ = {k: v for k, v in os.environ.items() if k not in console.QUIET}
  for given, shown in (({}, '3'), ({'TF_CPP_MIN_LOG_LEVEL': '1'}, '1')):
    done = subprocess.run(
      [sys.executable, '-c', script],
      cwd=ROOT,
      env=environ | given,
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout.startswith(f"['{shown}', '0'")


@pytest.mark.parametrize('command', __main__.COMMANDS)
def test_commands_import_console_before_anything_native(command):
  tree = ast.parse((ROOT / f'vdm/{command}.py').read_text())
  modules = [
    f'{node.module}.{alias.name}'
    for node in tree.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  ]
  own = [name for name in modules if name.startswith('vdm')]
  assert own[0] == 'vdm.common.console'


FAULTS = """
import resource
from vdm.common import console
import jax
import jax.numpy as jnp
import numpy as np

# Its temporary array is one that glibc would map anew for each call.
compute = jax.jit(lambda x: ((x + 1.0) @ jnp.ones(3000)).max())
x = jnp.asarray(np.ones((4000, 3000), np.float32))
for _ in range(20):  # Until the heap has grown around what else there is.
  compute(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
  compute(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='only glibc is told what to keep'
)
def test_memory_of_a_step_on_a_cpu_is_kept_for_the_next():
  def faults(**environ):
    kept = {k: v for k, v in os.environ.items() if 'MALLOC' not in k}
    result = subprocess.run(
      [sys.executable, '-c', FAULTS],
      env=kept | {'JAX_PLATFORMS': 'cpu'} | environ,
      cwd=ROOT,
      capture_output=True,
      check=True,
    )
    return int(result.stdout)

  # What a person says of malloc stays; 4000 x 3000 numbers take 11 719 pages.
  assert faults(MALLOC_PERTURB_='0') > 4 * 11_719
  assert faults() < 400


@pytest.mark.parametrize(
  'platforms, found, kept',
  [
    ('cpu', ['libtpu'], True),
    ('cuda', [], False),
    ('', [], True),
    ('', ['jax_plugins'], False),
    ('', ['libtpu'], False),
  ],
)
def test_memory_is_kept_where_the_processor_computes(
  monkeypatch, platforms, found, kept
):
  calls = []
  library = types.SimpleNamespace(mallopt=lambda *call: calls.append(call))
  monkeypatch.setattr(console.ctypes, 'CDLL', lambda _: library)
  monkeypatch.setattr(
    console.importlib.util, 'find_spec', lambda name: name in found or None
  )
  for name in [x for x in os.environ if x.startswith(('MALLOC_', 'GLIBC_'))]:
    monkeypatch.delenv(name)
  monkeypatch.setenv('JAX_PLATFORMS', platforms)
  console.keep_memory()
  assert bool(calls) == kept
  del library.mallopt  # Of another C library.
  console.keep_memory()
