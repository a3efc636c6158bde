"""Compares runs: what differs, and whether it helped by more than the seeds do.

  python -m vdm.compare runs/a_0 runs/a_1 runs/b_0 runs/b_1
  python -m vdm.compare sweeps/lr

Names are runs or folders of runs. Runs that differ in the seed alone are one
configuration; the first one named is the baseline. Every number of the final
videos, metrics cards and logs, these at equal steps, time and TFLOP, gets a
verdict: better, worse, differs, or that so few seeds cannot tell. The table is
printed; compare.json and compare.html go to --out.
"""

from collections.abc import Sequence
import functools
import os

from absl import app
from absl import flags
from absl import logging
from etils import epath

from vdm.common import console
from vdm.common import errors
from vdm.config import flag

_OUT = flags.DEFINE_string(
  'out',
  None,
  'Folder of compare.json and compare.html; by default the folder of runs, if '
  'one is named, else comparison.',
)
_PRIMARY = flags.DEFINE_string(
  'primary',
  '',
  'The number that decides, such as log/val_loss@steps; by default one that '
  'the data set decides. Name it before you look at any.',
)


def main(argv: Sequence[str]) -> None:
  names = argv[1:]
  if not names:
    flag.stop('Name runs, or folders of runs: python -m vdm.compare A B.')
  # The runs that are being read may have the accelerator.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from vdm.reporting import compare_runs

  console.start()
  try:
    out = _OUT.value or default_out(names)
    text = compare_runs.compare(
      compare_runs.find(names), out, primary=_PRIMARY.value
    )
  except (*errors.PATH_ERRORS, ValueError) as error:
    flag.stop(error)
  print(text, end='')
  logging.info('The page is %s.', epath.Path(out) / 'compare.html')


def default_out(names: Sequence[str]) -> str:
  """Returns the folder for what is written."""
  from vdm.reporting import run_record

  alone = len(names) == 1 and not run_record.is_run(names[0])
  return names[0] if alone else 'comparison'


if __name__ == '__main__':
  app.run(main, flags_parser=functools.partial(flag.parse, words=True))
