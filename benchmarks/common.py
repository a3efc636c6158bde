"""What benchmarks share: configurations, turns, records of where they ran."""

import json
import os
import pathlib
import platform
import statistics
import sys
import time
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent


def environment():
  """The command, the hardware and the versions of what is measured."""
  import jax

  return {
    'command': ' '.join(['python', *sys.argv]),
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'jax': jax.__version__,
  }


def write(path, record):
  """Writes a record as JSON; nothing where no path is given."""
  if path:
    pathlib.Path(path).write_text(json.dumps(record, indent=2) + '\n')


def untrained_autoencoder(config):
  """The frozen part of a latent stage; no time depends on what it learned."""
  import jax
  import numpy as np

  from vdm.common import sizes
  from vdm.models import autoencoders

  codec = autoencoders.make_autoencoder(config.autoencoder)
  shape = 1, 16, *sizes.of(config.data), 3
  video = np.random.default_rng(0).uniform(-1, 1, shape)
  return {
    'params': codec.init(jax.random.key(2), video.astype(np.float32)),
    'stats': {
      'mean': np.zeros(codec.channels, np.float32),
      'scale': np.ones(codec.channels, np.float32),
    },
  }


def stage_of(config, name):
  """The stage that --stage names."""
  from vdm.config import flag

  if name not in config.stages:
    flag.stop(f'--stage={name} is none of {", ".join(config.stages)}.')
  return config.stages[name]


def make_steps(config, stage, mesh):
  """A stage's `StageSteps` from random parameters, and its packed state."""
  import jax

  from vdm.models.image_unets import published
  from vdm.multihost import arrays
  from vdm.training import objectives
  from vdm.training import sharding
  from vdm.training import stage_steps
  from vdm.training import stages
  from vdm.training import train_state

  config.model = published.resolve(config.model)
  objective = objectives.make_objective(config, stage, mesh)
  params = objective.init(jax.random.key(0), None)
  state = train_state.create(config.optim, params)
  state = jax.device_put(state, sharding.tree_sharding(mesh, state))
  frozen = arrays.replicate(mesh, untrained_autoencoder(config))
  span = stages.Span(name='timed', stage=stage, start=0, stop=stage.steps)
  steps = stage_steps.StageSteps(
    config.optim, config.seed, mesh, span, objective, frozen, state
  )
  return steps, steps.pack(state)


class Step(NamedTuple):
  """A train step that is compiled, and what it takes.

  Attributes:
    run: (state, *arguments) -> (state, metrics); the state is donated.
    state: of random parameters.
    arguments: of random clips, on the device.
    operations: floating-point operations of one step.
    seconds: that compiling took.
  """

  run: Any
  state: Any
  arguments: Any
  operations: float
  seconds: float


def compile_step(config, stage, batch):
  """Compiles a stage's step for a batch of random clips."""
  import numpy as np

  from vdm.common import sizes
  from vdm.training import flops
  from vdm.training import sharding
  from vdm.training import train_step

  stage.batch = batch
  mesh = sharding.make_mesh(config.train.fsdp)
  steps, state = make_steps(config, stage, mesh)
  random = np.random.default_rng(0)
  shape = (stage.frames, *sizes.of(stage), 3)
  clips = {
    'video': random.integers(0, 256, (batch, *shape), np.uint8),
    'label': np.zeros(batch, np.int32),
  }
  _, arguments = steps.arguments(clips, 0)
  step = train_step.make_train_step(
    config.optim, stage, steps.objective, steps.layout, 0, mesh, state
  )
  operations = flops.count_flops(step, state, *arguments)
  began = time.perf_counter()
  compiled = step.lower(state, *arguments).compile()
  seconds = time.perf_counter() - began
  return Step(compiled, state, arguments, operations, seconds)


def load_config(name, variants=''):
  """The configuration of `configs/<name>.py`."""
  import importlib.util

  path = ROOT / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variants)


def closest(rows, match, target):
  """The row whose number is nearest to a target, as a ratio."""
  if not rows:
    raise ValueError('There is no width to choose from.')
  return min(
    rows, key=lambda row: max(row[match] / target, target / row[match])
  )


def in_turns(ours, theirs, pairs):
  """Times two functions that return seconds, in turns; the first pair warms up.

  Who begins changes from pair to pair, so that neither profits from a machine
  that becomes slower or faster.

  Returns:
    {'ours', 'theirs': seconds of each pair, 'ratio': theirs / ours, their
    median, 'ratio_range'}.
  """
  seconds = {'ours': [], 'theirs': []}
  for pair in range(1 + pairs):
    turns = [('ours', ours), ('theirs', theirs)]
    for name, run in turns if pair % 2 else reversed(turns):
      value = run()
      if pair:
        seconds[name].append(value)
  ratios = [t / o for o, t in zip(*seconds.values(), strict=True)]
  return {
    **seconds,
    'ratio': statistics.median(ratios),
    'ratio_range': [min(ratios), max(ratios)],
  }
