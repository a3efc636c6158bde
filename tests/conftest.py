"""What every test starts from: 8 small CPU devices and strict broadcasting.

Test doubles of accelerators are CPU devices, so one machine can test meshes.
`VDM_TEST_PLATFORM=cuda` (or tpu) runs the tests on an accelerator instead.
"""

import functools
import gc
from importlib import metadata
import os
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Real clips and weights, kept beside the project and not part of it.
SHARED = ROOT.parent / 'shared'

# Before jax is imported: compiling dominates the tests' time. Level 0 brings it
# to a quarter, one module for a program and XLA's older emitters of loops that
# to less than half.
QUICK = [
  '--xla_backend_optimization_level=0',
  '--xla_cpu_parallel_codegen_split_count=1',
]
if metadata.version('jaxlib').startswith('0.10.'):
  # XLA aborts where it does not know a flag, as jaxlib 0.11.2 this one.
  QUICK.append('--xla_cpu_use_fusion_emitters=false')
os.environ['JAX_PLATFORMS'] = os.environ.get('VDM_TEST_PLATFORM', 'cpu')
# Once: the processes of xdist are given what the first one has.
os.environ['XLA_FLAGS'] = ' '.join(
  dict.fromkeys([*os.environ.get('XLA_FLAGS', '').split(), *QUICK])
)
# Compiled programs are kept beside pytest's own cache, so that a second run,
# and the processes that tests start, compile little. jax's key holds the
# program, the flags and the versions.
for name, value in {
  'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.pytest_cache/jax'),
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  'TF_CPP_MIN_LOG_LEVEL': '2',
}.items():
  os.environ.setdefault(name, value)

from absl import flags
import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
# [b] against [b t h w c] raises instead of broadcasting over the channels.
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Grain and config_flags read flags, which nobody parses under pytest.
flags.FLAGS.mark_as_parsed()


# Two processes share the tests (launch/test.sh). What one of them runs as a
# whole is a file, or all files that share a run, which is then trained once.
@functools.cache
def unit(file):
  """Returns (rank, name): the longest come first, so that both end together."""
  text = (ROOT / file).read_text()
  if file.startswith('tests/faults/'):
    return 0, 'reference'
  if re.search(r'\bfinished_run\b', text):
    return 1, 'finished_run'
  return (2 if 'train.train(' in text else 3), file


def pytest_collection_modifyitems(config, items):
  if hasattr(config, 'workerinput'):  # A process of xdist.
    items.sort(key=lambda item: unit(item.nodeid.partition('::')[0])[0])


def pytest_collection_finish():
  # Of all that was imported nothing is garbage: looking for some took an eighth
  # of the time in which jax traces a program.
  gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  from xdist import scheduler

  class Units(scheduler.LoadFileScheduling):
    def _split_scope(self, nodeid):
      return unit(super()._split_scope(nodeid))[1]

  if config.getvalue('dist') != 'loadfile':
    return None
  config.option.loadscopereorder = False  # By the number of tests.
  return Units(config, log)


@pytest.fixture(scope='session')
def shared():
  """The folder of real clips and weights; the test is skipped without it."""
  if not SHARED.is_dir():
    pytest.skip(f'real clips and weights are not here: no folder {SHARED}')
  return SHARED


@pytest.fixture
def mount(tmp_path):
  """Function of a size, '48m', that mounts a file system of it."""
  import subprocess

  mounted = []

  def mount_one(size):
    path = tmp_path / f'disk_{len(mounted)}'
    path.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', path]
    try:
      done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
      pytest.skip('there is no mount command')
    if done.returncode:
      pytest.skip('mounting a small file system takes root')
    mounted.append(path)
    return path

  yield mount_one
  for path in mounted:
    subprocess.run(['umount', '-l', path], check=True)


@pytest.fixture(scope='session')
def bucket():
  """gs://vdm-tests, served by a process of its own, for this one and others."""
  import importlib.util
  import subprocess
  import sys

  import bucket_emulator

  for package in ('gcsfs', 'gcp_storage_emulator'):
    # Not imported yet: gcsfs reads the environment when it is.
    if importlib.util.find_spec(package) is None:
      pytest.skip(f'{package} is not installed')
  command = [sys.executable, bucket_emulator.__file__, 'vdm-tests']
  with (
    subprocess.Popen(
      command,
      stdin=subprocess.PIPE,  # It ends when this is closed.
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    ) as process,
    pytest.MonkeyPatch.context() as patch,
  ):
    port = int(process.stdout.readline())
    for name, value in bucket_emulator.environment(port).items():
      patch.setenv(name, value)
    yield 'gs://vdm-tests'
    process.stdin.close()


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
  """Where the data sets of tiny runs are built, once."""
  return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='session')
def finished_run(data_root, tmp_path_factory):
  """The folder of an uninterrupted tiny run; leave it as it is.

  `keys_read.json` beside its files lists the keys of the configuration that
  the package read by name while it ran.
  """
  # Here, so that tests without a run import nothing of it.
  import json

  import tiny_config
  import tiny_train

  from vdm import train

  workdir = tmp_path_factory.mktemp('finished')
  with tiny_train.recorded_keys() as keys:
    assert train.train(tiny_config.make_config(data_root), workdir) == 0
  (workdir / 'keys_read.json').write_text(json.dumps(sorted(keys)))
  return workdir


@pytest.fixture(scope='session')
def reference(tmp_path_factory):
  """(folder, cache of compiled programs, result) of a run nobody killed."""
  import kills  # In tests/faults.

  folder = tmp_path_factory.mktemp('faults')
  cache = ROOT / '.pytest_cache/faults'
  return folder, cache, kills.uninterrupted(folder / 'alone', cache)
