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
  import jax.numpy as jnp
  import numpy as np

  from vdm.common import sizes
  from vdm.multihost import arrays
  from vdm.training import flops
  from vdm.training import objectives
  from vdm.training import packing
  from vdm.training import sharding
  from vdm.training import throughput
  from vdm.training import train_state
  from vdm.training import train_step

  stage.batch = batch
  mesh = sharding.make_mesh(config.train.fsdp)
  copies = arrays.replicated(mesh)
  objective = objectives.make_objective(config, stage, mesh)
  params = objective.init(jax.random.key(0), None)
  state = train_state.create(config.optim, params)
  state = jax.device_put(state, sharding.tree_sharding(mesh, state))
  random = np.random.default_rng(0)
  shape = (stage.frames, *sizes.of(stage), 3)
  videos = random.integers(0, 256, (batch, *shape), np.uint8)
  arguments = (
    jax.device_put(common.untrained_autoencoder(config), copies),
    arrays.to_global(
      mesh,
      {
        'video': videos,
        'label': np.zeros(batch, np.int32),
      },
    ),
    jax.device_put(jnp.int32(0), copies),
    jax.device_put(jax.random.key(1), copies),
  )
  trained = train_step.trained_by(stage, objective, params)
  layout = packing.plan(state, trained)
  state = sharding.place(mesh, packing.pack(layout, state))
  step = train_step.make_train_step(
    config.optim, stage, objective, layout, 0, mesh, state
  )
  operations = flops.count_flops(step, state, *arguments)
  began = time.perf_counter()
  compiled = step.lower(state, *arguments).compile()
  compile_seconds = time.perf_counter() - began
  seconds = []
  for _ in range(3 + _STEPS.value):
    began = time.perf_counter()
    state, metrics = compiled(state, *arguments)
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - began)
  seconds = seconds[3:]
  median = statistics.median(seconds)
  peak = flops.peak_flops(
    jax.devices()[0].device_kind, config.train.compute_dtype
  )
  return {
    'batch': batch,
    'parameters': sum(x.size for x in jax.tree.leaves(params)),
    'compile_seconds': compile_seconds,
    'seconds_per_step': median,
    'seconds_range': [min(seconds), max(seconds)],
    'clips_per_second': batch / median,
    'tflops_per_step': operations / 1e12,
    'share_of_peak_flops': peak
    and operations / median / peak / jax.device_count(),
    **throughput.memory(),
  }


def main(argv):
  del argv

  config = _CONFIG.value
  if _STAGE.value not in config.stages:
    flag.stop(f'--stage={_STAGE.value} is none of {", ".join(config.stages)}.')
  stage = config.stages[_STAGE.value]
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
