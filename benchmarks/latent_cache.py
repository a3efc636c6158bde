"""Trains on frames and on cached latents side by side: losses and times.

  python -m vdm.main --config configs/synthetic.py --workdir runs/codec \
      --config.train.order="('autoencoder',)"
  python benchmarks/latent_cache.py --config configs/synthetic.py \
      --workdir runs/codec --config.data.latents=runs/codec/latents \
      --config.stages.video.warmup=1

Two runs of a stage from the same state on the same windows take turns of some
steps, so that a busy machine slows both alike. A run reads in its own turns
alone, or batches would be made while the other one computes, which hides the
time that reading takes. The cache is made first if it is not there. Times are
of a turn over its steps, waiting for their batches included, without the first
ones of each turn, before which nothing is read ahead.
"""

import os
import statistics
import sys
import time

from absl import app
from absl import flags
import common

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from vdm.config import flag
from vdm.training import stage_steps
from vdm.training import stages
from vdm.training import train_state

_CONFIG = flag.define()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Has the autoencoder.')
_STAGE = flags.DEFINE_string('stage', 'video', 'Name of a diffusion stage.')
_TURNS = flags.DEFINE_integer('turns', 4, 'Of each run.', lower_bound=1)
_STEPS = flags.DEFINE_integer(
  'steps', 8, 'Timed in a turn, after some more.', lower_bound=1
)
_RECORD = flags.DEFINE_string('record', None, 'JSON file for the numbers.')


class Side:
  """One of the two runs."""

  def __init__(self, config, source, span, workdir, mesh):
    import jax

    from vdm.training import autoencoder_stage
    from vdm.training import inputs
    from vdm.training import objectives

    autoencoder, fingerprint = autoencoder_stage.load(
      workdir / 'autoencoder', mesh
    )
    objective = objectives.make_objective(config, span.stage, mesh)
    key = train_state.stream(config.seed, 'init', 'diffusion')
    state = train_state.initialise(config.optim, objective, key, None, mesh)
    self.steps = stage_steps.StageSteps(
      config.optim,
      config.seed,
      mesh,
      span,
      objective,
      autoencoder,
      state,
    )
    self.state = self.steps.pack(state)
    self.read = lambda n: inputs.make_batches(
      config, source, span, n, fingerprint
    )
    # What reads ahead makes as many batches at once.
    self.untimed = max(3, config.data.threads)
    self.losses, self.seconds, self.n = [], [], 0
    self.wait = jax.block_until_ready

  def step(self, batches):
    batch = next(batches)
    self.state, metrics = self.steps(self.state, batch, self.n)
    self.wait(metrics)
    total, count = metrics['loss']
    self.losses.append(float(total / count))
    self.n += 1

  def compile(self):
    """Takes steps until there was one of each kind."""
    stage, compiled = self.steps.span.stage, set()
    kinds = {stages.on_single_frames(stage, n) for n in range(stage.steps)}
    with self.read(self.n) as batches:
      while compiled != kinds:
        compiled.add(stages.on_single_frames(stage, self.n))
        self.step(batches)

  def turn(self, steps):
    """Reads and takes steps; what the timed ones take, each."""
    with self.read(self.n) as batches:
      for _ in range(self.untimed):
        self.step(batches)
      began = time.perf_counter()
      for _ in range(steps):
        self.step(batches)
      self.seconds.append((time.perf_counter() - began) / steps)


def main(argv):
  del argv
  if not _WORKDIR.value or not _CONFIG.value.data.latents:
    flag.stop('--workdir and --config.data.latents are both needed.')
  from etils import epath
  import numpy as np

  from vdm.common import console
  from vdm.data import builders
  from vdm.preparation import datasets
  from vdm.training import cache_latents
  from vdm.training import sharding

  console.start()
  config, workdir = _CONFIG.value, epath.Path(_WORKDIR.value)
  plan = cache_latents.build(config, workdir)
  plain = config.copy_and_resolve_references()
  plain.data.latents = ''
  span = next(s for s in stages.spans(config) if s.name == _STAGE.value)
  source = builders.open_source(
    datasets.ensure(config.data), 'train', config.data.split_list
  )
  mesh = sharding.make_mesh(config.train.fsdp)
  sides = {
    name: Side(c, source, span, workdir, mesh)
    for name, c in (('frames', plain), ('latents', config))
  }
  for side in sides.values():
    side.compile()
  order = list(sides.values())
  for _ in range(_TURNS.value):
    for side in order:
      side.turn(_STEPS.value)
    order.reverse()
  losses = {name: np.asarray(side.losses) for name, side in sides.items()}
  difference = np.abs(losses['latents'] / losses['frames'] - 1)
  seconds = {
    name: statistics.median(side.seconds) for name, side in sides.items()
  }
  record = {
    **common.environment(),
    'autoencoder': config.autoencoder.to_dict(),
    'cached_frames': plan['frames'],
    'losses': {name: values.tolist() for name, values in losses.items()},
    'largest_relative_difference': float(difference.max()),
    'seconds_per_step': seconds,
    'ratio': seconds['latents'] / seconds['frames'],
    'seconds': {name: side.seconds for name, side in sides.items()},
  }
  for i, pair in enumerate(zip(*losses.values())):
    print(i + 1, *(f'{value:.6f}' for value in pair))
  for name in ('largest_relative_difference', 'seconds_per_step', 'ratio'):
    print(name, record[name])
  common.write(_RECORD.value, record)


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
