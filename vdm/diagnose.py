"""Tells what ails a run: "the loss is fine and the videos are bad".

  python -m vdm.diagnose --workdir runs/synthetic

Measures the data, the autoencoder, the parameters, single denoising steps (in
the company of their own and of other frames, with right and wrong labels,
beside the best linear denoiser) and samples. What is wrong is listed from cause
to effect, each with its number and what to do. Writes diagnosis.json and
diagnosis.png into the run's folder; vdm.report shows both. docs/diagnose.md
explains the numbers.
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
_CLIPS = flags.DEFINE_integer(
  'clips',
  64,
  'Held-out clips; four times as many training clips are read.',
  lower_bound=4,
)
_EMA = flags.DEFINE_float(
  'ema', None, "Width of the average; by default the run's."
)


def main(argv: Sequence[str]) -> None:
  del argv
  if not _WORKDIR.value:
    flag.stop('Give the folder of a run: --workdir runs/NAME.')
  from vdm.evaluation import diagnosis
  from vdm.evaluation import diagnosis_text

  console.start()
  try:
    result = diagnosis.diagnose(
      _WORKDIR.value,
      num=_CLIPS.value,
      ema=_EMA.value,
      report=lambda part: logging.info('Measuring %s.', part),
    )
  except (OSError, ValueError) as error:
    flag.stop(error)
  logging.info('\n%s', diagnosis_text.lay_out(result))
  logging.info('This and pictures are in %s/diagnosis.*', _WORKDIR.value)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
