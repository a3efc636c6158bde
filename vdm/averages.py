"""Compares averages of a run's parameters, also of widths it did not train.

  python -m vdm.averages --workdir runs/synthetic_steady --widths 0.05,0.08,0.12

Widths other than those of optim.ema are reconstructed from the snapshots that
train.snapshot_every keeps (EDM2's post-hoc EMA), as configs/synthetic.py:steady
does. Prints held-out losses
by noise level; `--keep` makes the best one the run's, which sampling, exports
and evaluations then take. Losses are a guide: look at videos of two widths, by
`python -m vdm.sample --ema WIDTH`, before you keep one.
"""

from collections.abc import Sequence

from absl import app
from absl import flags
from absl import logging

from vdm.common import console
from vdm.config import flag

_WORKDIR = flags.DEFINE_string(
  'workdir', None, "The run's folder, local or gs://."
)
_WIDTHS = flags.DEFINE_list(
  'widths', ['0.03', '0.05', '0.07', '0.1', '0.14', '0.2'], 'sigma_rel of each.'
)
_CLIPS = flags.DEFINE_integer('clips', 64, 'Held-out clips.', lower_bound=1)
_KEEP = flags.DEFINE_bool('keep', False, "Make the best one the run's.")


def main(argv: Sequence[str]) -> None:
  del argv
  if not _WORKDIR.value:
    flag.stop('Give the folder of a run: --workdir runs/NAME.')
  try:
    widths = [float(width) for width in _WIDTHS.value]
  except ValueError:
    widths = []
  if not widths or min(widths) <= 0:
    flag.stop('--widths are numbers above 0, with commas between them.')
  from vdm.evaluation import averages

  console.start()
  try:
    result = averages.compare(
      _WORKDIR.value,
      widths,
      num=_CLIPS.value,
      keep=_KEEP.value,
      report=lambda line: logging.info('Measuring %s.', line),
    )
  except (OSError, ValueError) as error:
    flag.stop(error)
  logging.info('\n%s', averages.text(result))
  if _KEEP.value:
    logging.info('%g makes the videos of this run from now on.', result['best'])


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
