"""Plans a run: its memory, time and disk on hardware that need not be here.

  python -m vdm.plan --config configs/ucf101.py --targets rtx4090,h100x8,v5e-8

For every stage: parameters, training state, operations of a step; and for every
target peak memory at the configuration's batch, the largest batch, and the
clips a second that training takes at 35 % of the peak; then the time of the
whole run at 20, 35 and 50 % of peak, the disk it needs, and the overrides that
would make it fit.

Memory is the target's own compiler's where that is installed (TPUs: pip install
'jax[tpu]', NVIDIA GPUs: pip install 'jax[cuda12]'; no device is needed), else
estimated; each row says which. Of a GPU, allow 10 to 15 % more for what is
tuned on the device. A compiler takes minutes for a large network: --nocompile
estimates.
"""

from collections.abc import Sequence
import os

from absl import app
from absl import flags

from vdm.common import console
from vdm.config import flag

_CONFIG = flag.define()
_TARGETS = flags.DEFINE_list(
  'targets',
  ['rtx4090', 'a100-40', 'h100', 'h100x8', 'v5e-4', 'v5e-8', 'v6e-8'],
  'Hardware to plan for, see vdm/planning/targets.py.',
)
_COMPILE = flags.DEFINE_bool(
  'compile', True, 'Ask compilers that are installed; else estimate.'
)
_COMPILE_SECONDS = flags.DEFINE_float(
  'compile_seconds', 600.0, 'Limit of one compilation.', lower_bound=1.0
)
_DATA_SECONDS = flags.DEFINE_float(
  'data_seconds', 10.0, 'To time the pipeline for; 0: not.', lower_bound=0.0
)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the numbers.')


def main(argv: Sequence[str]) -> None:
  del argv
  # The plan is made on the CPU, whatever this machine has.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from vdm.common import files
  from vdm.planning import report
  from vdm.planning import targets

  console.start()
  try:
    found = [targets.parse(name) for name in _TARGETS.value]
    plan = report.make(
      _CONFIG.value,
      found,
      compile_seconds=_COMPILE_SECONDS.value if _COMPILE.value else 0.0,
      data_seconds=_DATA_SECONDS.value,
    )
    print(report.text(plan))
    if _OUT.value:
      files.write_json(_OUT.value, plan)
  except (OSError, ValueError) as error:
    flag.stop(error)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
