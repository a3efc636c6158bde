"""What verified checkpoints cost: saving and restoring a state, and digests.

  python benchmarks/checkpoints.py --millions 300 \
      --record benchmarks/records/checkpoints_cpu.json
  python benchmarks/checkpoints.py --millions 3 --shapes 60 --cpu_devices 8

The state has that many float32 values, in kernels of 2.4 million or of as many
shapes: parameters, an optimizer's moment and an average, with a copy on every
device. Times are medians, and that of the first save, which compiles; that of
the digests is a part of both the call of `save`, which training waits for, and
of `restore`.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_MILLIONS = flags.DEFINE_integer('millions', 300, 'Values, float32.')
_SHAPES = flags.DEFINE_integer('shapes', 0, 'Of kernels; 0: one.')
_DEVICES = flags.DEFINE_integer('cpu_devices', 1, 'That a CPU acts as.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Of everything.')
_FOLDER = flags.DEFINE_string('folder', None, 'On the disk to be measured.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')

SHAPE = (3, 3, 512, 512)


def make_state(millions, different):
  """{item: {name: array}} on all devices, of so many shapes or of one."""
  import numpy as np

  from vdm.multihost import arrays
  from vdm.training import sharding

  rng, of_item = np.random.default_rng(0), millions * 1e6 / 3
  shapes = [SHAPE] * round(of_item / np.prod(SHAPE))
  if different:
    side = round((of_item / different / 9) ** 0.5)
    shapes = [(3, 3, side + i - different // 2, side) for i in range(different)]
  return arrays.replicate(
    sharding.make_mesh(),
    {
      item: {
        f'kernel_{i}': rng.standard_normal(shape, np.float32)
        for i, shape in enumerate(shapes)
      }
      for item in ('params', 'opt_state', 'ema')
    },
  )


def main(argv):
  del argv
  import jax

  jax.config.update('jax_num_cpu_devices', _DEVICES.value)
  from vdm.checkpoints import digests
  from vdm.checkpoints import manager

  state = make_state(_MILLIONS.value, _SHAPES.value)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  folder = tempfile.mkdtemp(dir=_FOLDER.value)
  seconds = {'digests': [], 'save_call': [], 'save': [], 'restore': []}

  def timed(name, function):
    began = time.perf_counter()
    result = function()
    seconds[name].append(time.perf_counter() - began)
    return result

  try:
    with manager.Checkpoints(folder, keep=1) as store:
      for step in range(1, 1 + _REPEATS.value):
        for leaves in state.values():
          jax.block_until_ready(leaves)
        timed('digests', lambda: [digests.digests(x) for x in state.values()])
        began = time.perf_counter()
        timed('save_call', lambda step=step: store.save(step, state, {}))
        store.wait()
        seconds['save'].append(time.perf_counter() - began)
        timed('restore', lambda: jax.block_until_ready(store.restore(abstract)))
  finally:
    shutil.rmtree(folder)
  record = {
    **common.environment(),
    'values': sum(x.size for x in jax.tree.leaves(state)),
    'seconds': seconds,
    'first_save_call': seconds['save_call'][0],
    'medians': {k: statistics.median(v) for k, v in seconds.items()},
  }
  shown = {'first_save_call': record['first_save_call'], **record['medians']}
  print({k: round(v, 2) for k, v in shown.items()})
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main)
