"""Counts what a compiled train step launches and touches, without a device.

  python benchmarks/compiled_step.py --targets h100 --config configs/ucf101.py \
      --config.stages.video.batch=8 --record benchmarks/records/mine.json

For each target, from its own compiler's program (vdm/planning/compile_step.py
says which packages that needs): launches of kernels, those that touch less
than 64 KiB, bytes read and written at most, peak memory, collectives, and the
kinds of kernel that touch most. Nothing is run: these are counts, not times.
"""

import json
import os
import sys

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_CONFIG = flag.define()
_STAGE = flags.DEFINE_string('stage', 'video', 'Name of a stage.')
_SINGLE = flags.DEFINE_bool('single', False, 'The step on single frames.')
_TARGETS = flags.DEFINE_list('targets', ['h100'], 'See vdm/planning/targets.py')
_SECONDS = flags.DEFINE_float('seconds', 1800.0, 'Limit of a compilation.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def main(argv):
  del argv
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from vdm.planning import compiling
  from vdm.planning import targets

  record = {**common.environment(), 'targets': {}}
  for name in _TARGETS.value:
    found = compiling.measure(
      _CONFIG.value,
      _STAGE.value,
      targets.parse(name),
      single=_SINGLE.value,
      seconds=_SECONDS.value,
    )
    print(name, json.dumps(found))
    record['targets'][name] = found
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
