"""Times I3D on some clips, and the distances at their published size.

  python benchmarks/fvd.py --clips 64 --record benchmarks/records/fvd.json

The network has random weights: its time does not depend on them. The time of
2 048 clips against 2 048 is extrapolated from what was timed, and said to be;
the distances are computed at that size, on random features.
"""

import json
import os
import pathlib
import platform
import sys
import time

from absl import app
from absl import flags

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm import config_flag

_CLIPS = flags.DEFINE_integer('clips', 64, 'Clips to time.', lower_bound=2)
_FRAMES = flags.DEFINE_integer('frames', 16, 'Of a clip.', lower_bound=9)
_RESOLUTION = flags.DEFINE_integer('resolution', 64, 'Of a clip, px.')
_BATCH = flags.DEFINE_integer('batch', 8, 'Clips a device at a time.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')

FULL = 2048  # Clips of a set, as published.


def network():
  """I3D with random weights, as `i3d.load` returns it."""
  import jax
  import numpy as np

  from vdm.models import features
  from vdm.models.features import i3d

  random = np.random.default_rng(0)
  shapes = jax.eval_shape(i3d.network().init, jax.random.key(0))

  def draw(path, leaf):
    if 'variance' in jax.tree_util.keystr(path):
      return np.ones(leaf.shape, np.float32)
    fan_in = max(1, np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 100
    x = random.standard_normal(leaf.shape) / np.sqrt(fan_in)
    return x.astype(np.float32)

  params = jax.tree_util.tree_map_with_path(draw, shapes)
  return features.Features(
    'i3d_random', params, i3d.make_apply(), {'network': 'i3d_random'}
  )


def main(argv):
  del argv
  import jax
  import numpy as np

  from vdm import features
  from vdm.metrics import frechet

  shape = (_FRAMES.value, _RESOLUTION.value, _RESOLUTION.value, 3)
  random = np.random.default_rng(0)
  videos = random.integers(0, 256, (_CLIPS.value, *shape), np.uint8)
  i3d = network()
  batch = min(_BATCH.value, _CLIPS.value // jax.device_count())
  seconds = {}

  def timed(name, function):
    began = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - began
    print(f'{name}: {seconds[name]:.2f} s', flush=True)
    return result

  timed(
    'first batch, with compiling',
    lambda: features.extract(
      i3d, videos[: batch * jax.device_count()], batch=batch
    ),
  )
  found = timed(
    f'features of {len(videos)} clips',
    lambda: features.extract(i3d, videos, batch=batch),
  )
  assert np.isfinite(found).all()
  per_clip = seconds[f'features of {len(videos)} clips'] / len(videos)
  x, y = random.standard_normal((2, FULL, found.shape[1]))
  timed('Frechet distance', lambda: frechet.frechet_of_features(x, y))
  timed('its limit', lambda: frechet.frechet_infinity(x, y))
  timed('kernel distance', lambda: frechet.kernel_distance(x, y))
  timed(
    'interval of the Frechet distance, of 10 draws',
    lambda: frechet.bootstrap(frechet.frechet_of_features, x, y, repeats=10),
  )
  record = {
    'command': 'python ' + ' '.join(sys.argv),
    'device': f'{jax.device_count()} {jax.devices()[0].device_kind}',
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'jax': jax.__version__,
    'clips': len(videos),
    'clip': list(shape),
    'seconds': seconds,
    'clips_per_second': 1 / per_clip,
    f'extrapolated_seconds_of_{FULL}_against_{FULL}': 2 * FULL * per_clip,
  }
  print(
    f'{1 / per_clip:.3g} clips a second; extrapolated, the features of {FULL} '
    f'clips against {FULL} take {2 * FULL * per_clip / 60:.1f} minutes.'
  )
  if _RECORD.value:
    path = pathlib.Path(_RECORD.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
  app.run(main, flags_parser=config_flag.parse)
