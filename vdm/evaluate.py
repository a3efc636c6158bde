"""Puts numbers to what was made: python -m vdm.evaluate COMMAND.

`autoencoder` gives clips through a run's autoencoder and back: PSNR, SSIM,
flicker where nothing moves, what the latents are like, and the worst clips to
look at. That is the ceiling of what the run's video model can reach.

  python -m vdm.evaluate autoencoder --workdir runs/ucf101
"""

from collections.abc import Sequence
import os
import pathlib
import sys

from absl import app
from absl import flags

from vdm import config_flag

_WORKDIR = flags.DEFINE_string('workdir', None, "The run's folder.")
_OUT = flags.DEFINE_string(
  'out', None, 'Where to; by default <workdir>/evaluation/<command>.'
)
_SPLIT = flags.DEFINE_enum(
  'split', 'validation', ['train', 'validation'], 'Which clips to take.'
)
_NUM = flags.DEFINE_integer('num', 256, 'How many clips.', lower_bound=1)

_command = []  # The one given.


def main(argv: Sequence[str]) -> None:
  del argv
  if not _WORKDIR.value:
    config_flag.stop('--workdir is missing: name the folder of a run.')
  cache = pathlib.Path.home() / '.cache' / 'vdm' / 'jax'
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  out = _OUT.value or f'{_WORKDIR.value}/evaluation/{_command[0]}'
  try:
    {'autoencoder': _autoencoder}[_command[0]](out)
  except FileNotFoundError as error:
    sys.exit(f'vdm.evaluate: {error}')


def _autoencoder(out: str) -> None:
  """Writes the report of a run's autoencoder and prints its table."""
  from etils import epath

  from vdm import config_io
  from vdm import console
  from vdm import reconstruction
  from vdm.data import builders
  from vdm.training import sharding

  console.start()
  workdir = epath.Path(_WORKDIR.value)
  if not (workdir / 'config.json').exists():
    raise FileNotFoundError(
      f'{workdir} holds no run: give the folder that training printed.'
    )
  config = config_io.load(workdir / 'config.json')
  source = builders.open_source(
    builders.ensure(config.data), _SPLIT.value, config.data.split_list
  )
  last = config.stages[config.train.order[-1]]
  content = reconstruction.report(
    workdir / 'autoencoder',
    source,
    out,
    num=_NUM.value,
    resolution=last.resolution,
    stride=config.data.stride,
    mesh=sharding.make_mesh(),
  )
  print(reconstruction.table(content))
  print(f'\n{out}/table.txt has every clip, worst_01.mp4 the worst.')


def _parse(argv: Sequence[str]) -> list[str]:
  """Takes the command off the command line and parses the rest."""
  wants_help = any(a.lstrip('-') in ('help', 'helpfull') for a in argv[1:])
  if wants_help:
    return config_flag.parse(argv)
  if len(argv) < 2 or argv[1] not in ('autoencoder',):
    config_flag.stop(
      'Say what to evaluate: python -m vdm.evaluate autoencoder --workdir RUN.'
    )
  _command[:] = argv[1:2]
  return config_flag.parse([argv[0], *argv[2:]])


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
