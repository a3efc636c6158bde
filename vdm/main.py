"""Trains a model: python -m vdm.main --config configs/ucf101.py.

The same command goes on where a run was stopped. Exit codes: 0 finished, 1
failed, 2 a mistake in the command or the configuration, 75 stopped before the
end (run the same command again).
"""

import os
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging

from vdm import config_flag
from vdm import console

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  "The run's folder, local or gs://; by default runs/<name of the config>.",
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed', 'auto', ['auto', 'on', 'off'], 'Join other processes.'
)

OUT_OF_MEMORY = (
  'Out of device memory: lower stages.<name>.batch, or raise '
  'stages.<name>.accumulate, or set --config.model.remat=block, or '
  '--config.train.compute_dtype=bfloat16.'
)


def main(argv):
  del argv
  # A run that goes on, or the next one like it, need not compile again.
  cache = pathlib.Path.home() / '.cache' / 'vdm' / 'jax'
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  # Only here: processes that read data import this module again.
  import jax

  from vdm import train
  from vdm.data import latents
  from vdm.training import distributed
  from vdm.training import resume

  console.start()
  try:
    distributed.initialize(_DISTRIBUTED.value)
    logging.info(
      'jax %s on %d x %s',
      jax.__version__,
      jax.device_count(),
      jax.devices()[0].device_kind,
    )
    code = train.train(_CONFIG.value, workdir())
  except (
    resume.ResumeError,
    latents.CacheError,
    FileNotFoundError,
  ) as error:
    config_flag.stop(error)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    logging.error('%s', error)
    print(OUT_OF_MEMORY, file=sys.stderr)
    code = 1
  sys.exit(code)


def workdir():
  """The folder given, or one named after the config file."""
  if _WORKDIR.value:
    return _WORKDIR.value
  path = flags.FLAGS['config'].config_filename
  name = pathlib.Path(path.partition(':')[0]).stem
  variant = path.partition(':')[2]
  return f'runs/{name}_{variant}' if variant else f'runs/{name}'


if __name__ == '__main__':
  app.run(main, flags_parser=config_flag.parse)
