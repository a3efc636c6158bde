"""Trains a model: python -m vdm.main --config configs/ucf101.py.

The same command resumes a run that was stopped. Exit codes: 0 finished, or at
--stop_at; 1 failed, 2 a mistake in the command or the configuration, 75 stopped
before that (run the same command again).
"""

from collections.abc import Sequence
import errno
import os
import pathlib
import sys
import time
import traceback

from absl import app
from absl import flags
from absl import logging

from vdm.common import console
from vdm.common import errors
from vdm.config import flag

_CONFIG = flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  "The run's folder, local or gs://; by default runs/<name of the config>.",
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed', 'auto', ['auto', 'on', 'off'], 'Join other processes.'
)

_STOP_AT = flags.DEFINE_integer(
  'stop_at',
  None,
  'Stop after this step of all, which is saved, and evaluated if it is due; '
  'the same command without it resumes.',
  lower_bound=1,
)
_ACCEPT_CHANGES = flags.DEFINE_bool(
  'accept_changes',
  False,
  'Resume a run although its configuration or data set was different.',
)

OUT_OF_MEMORY = (
  'Out of device memory: lower stages.<name>.batch, or raise '
  'stages.<name>.accumulate, or set --config.model.remat=block, or '
  '--config.train.compute_dtype=bfloat16.'
)
FULL_DISK = (
  'The disk is full: free some space and run the same command again, which '
  'resumes from the last checkpoint.'
)


def main(argv: Sequence[str]) -> None:
  del argv
  # A resumed run, or the next one like it, need not compile again.
  cache = pathlib.Path.home() / '.cache' / 'vdm' / 'jax'
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  # Not at the top: worker processes import this module again.
  import jax

  from vdm import train
  from vdm.config import check
  from vdm.multihost import coordination
  from vdm.multihost import initialize

  console.start()
  try:
    options = _CONFIG.value.train
    initialize.initialize(
      _DISTRIBUTED.value, 60 * options.barrier_minutes, options.peer_seconds
    )
    initialize.divide_cpu(check.cpu_devices(_CONFIG.value))
    devices = initialize.devices()
    logging.info(
      'jax %s on %d x %s',
      jax.__version__,
      len(devices),
      devices[0].device_kind,
    )
    code = train.train(
      _CONFIG.value,
      workdir(),
      _ACCEPT_CHANGES.value,
      sys.argv[1:],
      stop_at=_STOP_AT.value,
    )
  except Exception as error:
    code = explain(error)
    index, count = coordination.joined()
    if count > 1:
      if index == 0:
        # The others end when this process does: let them print theirs first.
        time.sleep(1)
      # The others have been told; a regular exit would wait for them.
      coordination.leave(code)
  sys.exit(code)


def explain(error: Exception) -> int:
  """Prints what went wrong and returns the exit code.

  What a person can fix is one line; anything else is a traceback.
  """
  from vdm.checkpoints import manager
  from vdm.checkpoints import reader
  from vdm.common import buckets
  from vdm.data import clip_reader
  from vdm.multihost import coordination
  from vdm.training import nonfinite

  text = ' '.join(str(error).split())
  if isinstance(
    error,
    (
      errors.UsageError,
      reader.CheckpointMismatch,
      *errors.PATH_ERRORS,
    ),
  ):
    print(text, file=sys.stderr)
    return flag.USAGE_ERROR
  if isinstance(
    error,
    (
      manager.CheckpointError,
      nonfinite.NonFiniteError,
      clip_reader.BadRecordsError,
      buckets.UnreachableError,
    ),
  ):
    print(text, file=sys.stderr)
  elif isinstance(error, coordination.CoordinationError):
    print(error, file=sys.stderr)
    return coordination.STOPPED
  elif getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
    print(f'{FULL_DISK} ({text})', file=sys.stderr)
  else:
    traceback.print_exception(error)
    if 'RESOURCE_EXHAUSTED' in text:
      print(OUT_OF_MEMORY, file=sys.stderr)
  return 1


def workdir() -> str:
  """Returns the folder given, or one named after the config file."""
  if _WORKDIR.value:
    return _WORKDIR.value
  path = flags.FLAGS['config'].config_filename
  name = pathlib.Path(path.partition(':')[0]).stem
  variant = path.partition(':')[2]
  return f'runs/{name}_{variant}' if variant else f'runs/{name}'


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
