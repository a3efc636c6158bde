"""Times this network beside other people's, on the same machine.

  python -m venv /tmp/peers
  /tmp/peers/bin/pip install torch video-diffusion-pytorch diffusers \
      transformers accelerate
  python benchmarks/peers.py --config configs/synthetic.py --stage video \
      --python /tmp/peers/bin/python --record benchmarks/records/mine.json

For each peer, lucidrains' Unet3D and diffusers' UNet3DConditionModel, the width
is chosen that comes closest to this network's parameters, and that which comes
closest to its operations; then a training step of one and of the other are
timed in turns, and so is a network evaluation of sampling. Both see clips of
the stage's latents, in the configuration's dtype, with as many levels as
`model.widths`. Ours is the whole step of a run on cached latents: optimizer,
gradient clipping, every average. Theirs is the squared error of the noise,
clipping, fused AdamW and one average. Of every pair the ratio counts, peer's
time over ours; the record has all of them.

PyTorch runs in a process of its own and waits while JAX works. With --compile
it is compiled by torch.compile.
"""

import contextlib
import json
import os
import subprocess
import sys
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import check
from vdm.config import flag

PEERS, MATCHES, TASKS = (
  ('lucidrains', 'diffusers'),
  ('parameters', 'operations'),
  ('train', 'sample'),
)
_CONFIG = flag.define()
_STAGE = flags.DEFINE_string('stage', 'video', 'Name of a diffusion stage.')
_PYTHON = flags.DEFINE_string('python', sys.executable, 'It has torch.')
_PEERS = flags.DEFINE_multi_enum('peer', PEERS, PEERS, 'Which.')
_MATCHES = flags.DEFINE_multi_enum('match', MATCHES, MATCHES, 'Of equal what.')
_TASKS = flags.DEFINE_multi_enum('what', TASKS, TASKS, 'What is timed.')
_BATCH = flags.DEFINE_integer('batch', 0, "Clips; 0: the stage's own.")
_WIDTHS = flags.DEFINE_list(
  'widths', ['8', '16', '24', '32', '48', '64', '96', '128'], 'To choose from.'
)
_PAIRS = flags.DEFINE_integer('pairs', 7, 'Timed in turns, after one more.')
_STEPS = flags.DEFINE_integer('steps', 3, 'Of each side in a pair.')
_THREADS = flags.DEFINE_integer('threads', 0, "Of torch; 0: torch's choice.")
_COMPILE = flags.DEFINE_bool('compile', False, 'Whether torch compiles.')
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


def peer_process(options):
  """Starts `peers_torch.py`; its output is read line by line."""
  script = str(common.ROOT / 'benchmarks' / 'peers_torch.py')
  return subprocess.Popen(
    [_PYTHON.value, script, json.dumps(options)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def costs(options, widths):
  """What the peer's networks of these widths cost."""
  process = peer_process(options | {'widths': widths})
  output, _ = process.communicate()
  if process.returncode:
    raise RuntimeError(
      f'{options["peer"]} could not be measured: see above, and give '
      '--python an interpreter that has it.'
    )
  return [json.loads(line) for line in output.splitlines()]


@contextlib.contextmanager
def peer_timer(options, steps):
  """Yields (what it runs on, function that runs steps -> seconds a step)."""
  process = peer_process(options)

  def answer():
    line = process.stdout.readline()
    if not line:
      raise RuntimeError(f'{options["peer"]} stopped: see above.')
    return json.loads(line)

  def run():
    process.stdin.write(f'{steps}\n')
    process.stdin.flush()
    return answer() / steps

  try:
    yield answer(), run
  finally:
    process.stdin.close()
    process.wait()


def our_train(config, stage, mesh):
  """(parameters, operations, () -> waits for one step) of training."""
  import jax
  import numpy as np

  from vdm.multihost import arrays

  steps, state = common.make_steps(config, stage, mesh)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  random, shape = np.random.default_rng(0), latent_shape(config, stage)
  batch = {'mean': random.normal(size=shape).astype(np.float32)}
  if config.model.num_classes:
    batch['label'] = np.zeros(shape[0], np.int32)
  batch = arrays.to_global(mesh, batch)

  def once():
    nonlocal state
    state, metrics = steps(state, batch, 0)
    jax.block_until_ready(metrics)

  once()
  return count, steps.tflops * 1e12, once


def our_sample(config, stage, mesh):
  """Likewise of one evaluation of the network."""
  import jax
  import jax.numpy as jnp

  from vdm import models
  from vdm.models import autoencoders
  from vdm.training import flops

  del mesh
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = models.make_unet(config.model, codec.channels)
  params = jax.jit(network.init)(jax.random.key(0))
  shape = latent_shape(config, stage)
  z = jnp.zeros(shape, config.train.compute_dtype)
  levels = jnp.zeros(shape[:2])
  cond = {}
  if config.model.num_classes:
    cond['label'] = jnp.zeros(shape[0], jnp.int32)
  apply = jax.jit(network.apply)
  arguments = params, z, levels, cond

  def once():
    jax.block_until_ready(apply(*arguments))

  once()
  count = sum(x.size for x in jax.tree.leaves(params))
  return count, flops.count_flops(apply, *arguments), once


def latent_shape(config, stage):
  """[b t h w c] of a step's latents."""
  from vdm.common import sizes
  from vdm.models import autoencoders
  from vdm.sampling import coders

  codec = autoencoders.make_autoencoder(config.autoencoder)
  shape = coders.latent_shape(codec, stage.frames, sizes.of(stage))
  return stage.batch, *shape


def measure(config, stage, what):
  """Rows of all peers and matches, of training or of sampling."""
  from vdm.training import sharding

  mesh = sharding.make_mesh(1)
  make = our_train if what == 'train' else our_sample
  parameters, operations, once = make(config, stage, mesh)

  def ours():
    began = time.perf_counter()
    for _ in range(_STEPS.value):
      once()
    return (time.perf_counter() - began) / _STEPS.value

  b, t, h, w, c = latent_shape(config, stage)
  mine = {'parameters': parameters, 'operations': operations}
  for peer in _PEERS.value:
    options = {
      'peer': peer,
      'what': what,
      'shape': [b, c, t, h, w],
      'levels': len(config.model.widths),
      'dtype': config.train.compute_dtype,
      'threads': _THREADS.value,
      'compile': _COMPILE.value,
    }
    found = costs(options, [int(x) for x in _WIDTHS.value])
    for match in _MATCHES.value:
      theirs = common.closest(found, match, mine[match])
      with peer_timer(options | {'width': theirs['width']}, _STEPS.value) as (
        software,
        run,
      ):
        timed = common.in_turns(ours, run, _PAIRS.value)
      yield {
        'what': what,
        'peer': peer,
        'equal': match,
        'shape': [b, t, h, w, c],
        'ours': mine,
        'theirs': theirs | software,
        'seconds': timed,
      }


def main(argv):
  del argv
  from vdm.multihost import initialize

  config = _CONFIG.value
  stage = common.stage_of(config, _STAGE.value)
  stage.batch = _BATCH.value or stage.batch
  # As a run does it.
  initialize.divide_cpu(check.cpu_devices(config))
  record = {
    **common.environment(),
    'compute_dtype': config.train.compute_dtype,
    'rows': [],
  }
  for what in _TASKS.value:
    for row in measure(config, stage, what):
      record['rows'].append(row)
      seconds = row['seconds']
      low, high = seconds['ratio_range']
      print(
        f'{what:7} {row["peer"]:11} of equal {row["equal"]:11}'
        f'{seconds["ratio"]:6.2f} times our time ({low:.2f} to {high:.2f})',
        flush=True,
      )
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
