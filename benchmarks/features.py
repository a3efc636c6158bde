"""Times the networks that metrics see videos through.

  python benchmarks/features.py --network i3d --clips 64 --batch 8

Clips of random pixels, weights of zeros: neither changes the time. Resizing is
in it, reading and decoding are not. Compiling is timed apart, with a batch as
large as all others; the seconds are of all clips after it.
"""

import json
import os
import sys
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_NETWORK = flags.DEFINE_enum('network', 'i3d', ['i3d', 'c3d'], 'Which one.')
_CLIPS = flags.DEFINE_integer('clips', 64, 'Clips.')
_BATCH = flags.DEFINE_integer(
  'batch', 8, 'Most clips at once, over all devices.'
)
_FRAMES = flags.DEFINE_integer('frames', 16, 'Of a clip; c3d: 16.')
_SIZE = flags.DEFINE_integer('size', 64, 'Height and width of the clips, px.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def main(argv):
  del argv
  import jax
  import jax.numpy as jnp
  import numpy as np

  from vdm.models.features import c3d
  from vdm.models.features import i3d
  from vdm.multihost import arrays
  from vdm.sampling import batching
  from vdm.training import sharding

  module = {'i3d': i3d, 'c3d': c3d}[_NETWORK.value]
  apply = i3d.make_apply() if module is i3d else c3d.apply
  mesh = sharding.make_mesh()
  abstract = jax.eval_shape(module.network().init, jax.random.key(0))
  params = jax.device_put(
    jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), abstract),
    arrays.replicated(mesh),
  )
  shape = (_CLIPS.value, _FRAMES.value, _SIZE.value, _SIZE.value, 3)
  videos = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

  def run(videos):
    began = time.perf_counter(), time.process_time()
    batching.apply(
      lambda rows: apply(params, rows), (videos,), _BATCH.value, mesh
    )
    return time.perf_counter() - began[0], time.process_time() - began[1]

  # Batches of equal size, which may be smaller than what was asked for.
  (rows,), _ = next(batching.chunks((videos,), _BATCH.value, mesh))
  batch = len(rows)
  first, _ = run(videos[:batch])
  seconds, cpu_seconds = run(videos)
  record = {
    **common.environment(),
    'load_average': os.getloadavg()[0],
    'network': _NETWORK.value,
    'clips': _CLIPS.value,
    'shape': shape[1:],
    'batch': batch,
    'first_batch_seconds': first,
    'seconds': seconds,
    'cpu_seconds': cpu_seconds,
    'clips_per_second': _CLIPS.value / seconds,
  }
  print(json.dumps(record))
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main)
