"""Times sampling: noise to pixels, with a configuration's own sampler.

  python benchmarks/sampling.py --config configs/ucf101.py --stage video
  python benchmarks/sampling.py --config configs/synthetic.py \
      --config.sample.steps=50 --record benchmarks/records/my_machine.json

Parameters are random, and videos take as long with them. Prints the time of the
first batch, with compiling; then seconds of a batch (median and range), videos
a second and peak memory.
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
_BATCHES = flags.DEFINE_integer('batches', 3, 'Timed, after one more.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def measure(config, stage, batches):
  """The numbers of batches of `config.sample.batch` videos."""
  import jax
  import numpy as np

  from vdm import generate
  from vdm import prompts
  from vdm.common import sizes
  from vdm.common import vocabulary
  from vdm.config import sampling
  from vdm.training import objectives
  from vdm.training import sharding
  from vdm.training import throughput

  config = sampling.by_conditions(config)
  mesh = sharding.make_mesh(config.train.fsdp)
  params = objectives.make_objective(config, stage, mesh).init(
    jax.random.key(0), None
  )
  make = generate.make_generator(config, stage, mesh)
  frozen = common.untrained_autoencoder(config)
  n = config.sample.batch
  text, reader = config.model.text, None
  if text.encoder == 'learned':  # Any words take the same time.
    reader = vocabulary.Words((), text.length)
  cond = prompts.for_preview(config, reader, n).cond
  seconds = []
  for i in range(1 + batches):
    began = time.perf_counter()
    make.samples(params, frozen, cond, np.arange(n) + n * i)
    seconds.append(time.perf_counter() - began)
  median = statistics.median(seconds[1:])
  return {
    'batch': n,
    'frames': stage.frames,
    **sizes.keys(sizes.of(stage)),
    'steps': config.sample.steps,
    'guidance': config.sample.guidance,
    'parameters': sum(x.size for x in jax.tree.leaves(params)),
    'first_batch_seconds': seconds[0],
    'seconds_per_batch': median,
    'seconds_range': [min(seconds[1:]), max(seconds[1:])],
    'videos_per_second': n / median,
    **throughput.memory(),
  }


def main(argv):
  del argv

  config = _CONFIG.value
  stage = common.stage_of(config, _STAGE.value)
  row = measure(config, stage, _BATCHES.value)
  print(json.dumps(row))
  record = {
    **common.environment(),
    'compute_dtype': config.train.compute_dtype,
    **row,
  }
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
