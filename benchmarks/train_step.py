"""Times the train step of a configuration, with its own data or without.

  python benchmarks/train_step.py --config configs/ucf101.py --stage video
  python benchmarks/train_step.py --config configs/synthetic.py --stage video \
      --batches 8,16,32 --record benchmarks/records/my_machine.json

For each batch size: compile time, step time (median and range), clips a
second, FLOPs, share of the device's bfloat16 peak where that is known, peak
memory. Batches are random arrays on the device, so that nothing but the step
is timed; the share of time a run waits for data is in its own metrics.jsonl.
"""

import json
import os
import statistics
import sys
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag

_CONFIG = flag.define()
_STAGE = flags.DEFINE_string('stage', 'video', 'Name of a diffusion stage.')
_BATCHES = flags.DEFINE_list('batches', None, "By default the stage's own.")
_STEPS = flags.DEFINE_integer('steps', 10, 'Timed, after three more.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def measure(config, stage, batch):
  """The numbers of one batch size."""
  import jax

  from vdm.training import flops
  from vdm.training import throughput

  step = common.compile_step(config, stage, batch)
  state = step.state
  seconds = []
  for _ in range(3 + _STEPS.value):
    began = time.perf_counter()
    state, metrics = step.run(state, *step.arguments)
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - began)
  seconds = seconds[3:]
  median = statistics.median(seconds)
  peak = flops.peak_flops(
    jax.devices()[0].device_kind, config.train.compute_dtype
  )
  return {
    'batch': batch,
    'parameters': sum(x.size for x in jax.tree.leaves(state.params)),
    'compile_seconds': step.seconds,
    'seconds_per_step': median,
    'seconds_range': [min(seconds), max(seconds)],
    'clips_per_second': batch / median,
    'tflops_per_step': step.operations / 1e12,
    'share_of_peak_flops': peak
    and step.operations / median / peak / jax.device_count(),
    **throughput.memory(),
  }


def main(argv):
  del argv

  config = _CONFIG.value
  stage = common.stage_of(config, _STAGE.value)
  batches = [int(x) for x in _BATCHES.value or [stage.batch]]
  record = {
    **common.environment(),
    'compute_dtype': config.train.compute_dtype,
    'rows': [],
  }
  for batch in batches:
    row = measure(config, stage, batch)
    record['rows'].append(row)
    print(json.dumps(row))
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
