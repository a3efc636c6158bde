"""Replays a step that a run dumped because it was not finite.

  python -m vdm.replay --bundle runs/ucf101/nonfinite/step_00001234

Prints which rows of the batch and which parameters are not finite and where
the clips come from, and says whether the numbers are those of the run. Exit
codes: 0 the same non-finite loss or gradient, 1 another result.
"""

from collections.abc import Sequence
import sys

from absl import app
from absl import flags

from vdm.common import console
from vdm.config import flag

_BUNDLE = flags.DEFINE_string(
  'bundle', None, 'A folder under <workdir>/nonfinite.'
)
_FLOAT32 = flags.DEFINE_bool(
  'float32', False, 'Compute in float32, whatever the run did.'
)


def main(argv: Sequence[str]) -> None:
  del argv
  if not _BUNDLE.value:
    flag.stop('Give a step: --bundle runs/NAME/nonfinite/step_XXXXXXXX.')
  from vdm.multihost import initialize
  from vdm.training import nonfinite

  console.start()
  try:
    initialize.devices()
    bundle = nonfinite.read(_BUNDLE.value)
  except (OSError, ValueError) as error:
    flag.stop(error)
  found, rows = nonfinite.replay(_BUNDLE.value, *bundle, _FLOAT32.value)
  lines, same = nonfinite.compare(bundle[1], found, rows)
  print('\n'.join(lines))
  sys.exit(0 if same else 1)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
