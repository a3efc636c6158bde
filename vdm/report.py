"""Writes a page of a run: curves, samples, numbers, configuration, versions.

  python -m vdm.report --workdir runs/synthetic

It goes to report.html in the run's folder, while the run trains or after. The
page is one file that fetches nothing: it can be mailed, and opened from a disk.
"""

from collections.abc import Sequence
import os

from absl import app
from absl import flags
from absl import logging

from vdm.common import console
from vdm.config import flag

_WORKDIR = flags.DEFINE_string(
  'workdir', None, "The run's folder, local or gs://."
)


def main(argv: Sequence[str]) -> None:
  del argv
  if not _WORKDIR.value:
    flag.stop('Give the folder of a run: --workdir runs/NAME.')
  # The run that is being read may have the accelerator.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from vdm.reporting import run_page
  from vdm.reporting import run_record

  console.start()
  try:
    record = run_record.read(_WORKDIR.value)
    size = run_page.write(record)
  except (OSError, ValueError) as error:
    flag.stop(error)
  for problem in record.problems:
    logging.warning('%s', problem)
  logging.info(
    'The page is %s, %.1f MB.', record.workdir / run_page.NAME, size / 1e6
  )


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
