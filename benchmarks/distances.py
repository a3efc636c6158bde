"""Times the distances between sets of clips at their published size.

  python benchmarks/distances.py --record benchmarks/records/distances.json

Random features of 2 048 clips against 2 048, 400 of them as I3D gives, and 32
as the offline descriptors have. What the networks and the descriptors take is
measured by benchmarks/features.py and benchmarks/metric_sensitivity.py.
"""

import json
import os
import pathlib
import platform
import sys
import time

from absl import app
from absl import flags
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag
from vdm.metrics import distances
from vdm.metrics import frechet

_CLIPS = flags.DEFINE_integer('clips', 2048, 'Of each set.', lower_bound=16)
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def main(argv):
  del argv
  random = np.random.default_rng(0)
  x, y = random.standard_normal((2, _CLIPS.value, 400))
  small = random.standard_normal((2, _CLIPS.value, 32))
  moments = [frechet.moments(z) for z in (x, y)]
  pooled = distances.Pooled(*small)
  record = {
    'command': ' '.join(['python', *sys.argv]),
    'cores': os.cpu_count(),
    'load_average': os.getloadavg()[0],
    'python': platform.python_version(),
    'numpy': np.__version__,
    'clips': _CLIPS.value,
    'seconds': {},
    'cpu_seconds': {},
  }
  for name, function in {
    'moments': lambda: frechet.moments(x),
    'frechet': lambda: frechet.frechet(*moments),
    'frechet_infinity': lambda: frechet.frechet_infinity(x, y),
    'frechet_interval_of_100': lambda: frechet.bootstrap(
      frechet.frechet_of_features, x, y
    ),
    'kernel_distance': lambda: frechet.kernel_distance(x, y),
    'energy': lambda: distances.Pooled(*small).energy(),
    'energy_interval_of_200': pooled.interval,
    'energy_null_of_200': pooled.null,
  }.items():
    began = time.perf_counter(), time.process_time()
    function()
    record['seconds'][name] = time.perf_counter() - began[0]
    record['cpu_seconds'][name] = time.process_time() - began[1]
    print(
      f'{name}: {record["seconds"][name]:.2f} s, '
      f'{record["cpu_seconds"][name]:.2f} s of CPU',
      flush=True,
    )
  if _RECORD.value:
    path = pathlib.Path(_RECORD.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
