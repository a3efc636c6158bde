"""What skipping steps that are not finite costs: the step with and without it.

  python benchmarks/skipping.py --config configs/synthetic.py --stage video \
      --record benchmarks/records/skipping.json

Both programs take turns, step by step, so that what else the machine does
falls on both; the ratio is that of their medians and of their minima. What the
compiler counts as memory traffic does not depend on the machine's load.
"""

import json
import os
import platform
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
_BATCH = flags.DEFINE_integer('batch', None, "By default the stage's own.")
_STEPS = flags.DEFINE_integer('steps', 20, 'Timed, after two more.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def main(argv):
  del argv
  import jax
  import jax.numpy as jnp
  import numpy as np

  from vdm.common import sizes
  from vdm.multihost import arrays
  from vdm.training import objectives
  from vdm.training import packing
  from vdm.training import sharding
  from vdm.training import train_state
  from vdm.training import train_step

  config = _CONFIG.value
  stage = config.stages[_STAGE.value]
  stage.batch = _BATCH.value or stage.batch
  mesh = sharding.make_mesh()
  objective = objectives.make_objective(config, stage, mesh)
  params = objective.init(jax.random.key(0), None)
  trained = train_step.trained_by(stage, objective, params)
  clips = np.random.default_rng(0).integers(
    0, 256, (16, stage.frames, *sizes.of(stage), 3), np.uint8
  )
  batch = {
    'video': np.resize(clips, (stage.batch, *clips.shape[1:])),
    'label': np.zeros(stage.batch, np.int32),
  }
  arguments = (
    arrays.replicate(mesh, common.untrained_autoencoder(config)),
    arrays.to_global(mesh, batch),
    *arrays.replicate(mesh, (np.int32(0), jax.random.key(2))),
  )

  def build(select):
    train_step.select = select
    state = train_state.create(config.optim, jax.tree.map(jnp.copy, params))
    state = jax.device_put(state, arrays.replicated(mesh))
    layout = packing.plan(state, trained)
    state = sharding.place(mesh, packing.pack(layout, state))
    step = train_step.make_train_step(
      config.optim, stage, objective, layout, 0, mesh, state
    )
    return [step.lower(state, *arguments).compile(), state, []]

  programs = {
    'skipping': build(train_step.select),
    'not': build(lambda finite, new_state, state: new_state),
  }
  for number in range(_STEPS.value + 2):
    for program in programs.values():
      step, state, seconds = program
      began = time.perf_counter()
      state, metrics = step(state, *arguments)
      jax.block_until_ready((state, metrics))
      program[1] = state
      if number > 1:
        seconds.append(time.perf_counter() - began)
  times = {name: program[2] for name, program in programs.items()}
  record = {
    **common.environment(),
    'machine': platform.machine(),
    'parameters': sum(x.size for x in jax.tree.leaves(params)),
    'batch': stage.batch,
    'seconds': times,
    'bytes_accessed': {
      name: program[0].cost_analysis()['bytes accessed']
      for name, program in programs.items()
    },
    'ratio_of_medians': statistics.median(times['skipping'])
    / statistics.median(times['not']),
    'ratio_of_minima': min(times['skipping']) / min(times['not']),
  }
  print(json.dumps({k: v for k, v in record.items() if k != 'seconds'}))
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
