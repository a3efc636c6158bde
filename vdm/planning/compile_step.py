"""Compiles a stage's step for devices that this machine does not have.

`compiling` runs this module as a process of its own: a request on standard
input, one line of JSON on standard output. TPUs need the package libtpu, NVIDIA
GPUs jax's CUDA plugin (extras `tpu` and `cuda12` of jax); no device is needed.
The environment that jax and the compilers read is `compiling.ENVIRONMENT`.

What comes back is the compiler's own account of one device. A GPU's lacks what
autotuning adds on the device: cuDNN's workspaces.
"""

import json
import re
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies
import numpy as np

from vdm.config import serialize
from vdm.planning import costs
from vdm.training import sharding

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all')
# Compiles four times faster, and changes peak memory by some per cent.
QUICK = {'tpu': {'xla_optimization_level': 'EFFORT_O0'}, 'gpu': None}


def devices(platform: str, topology: dict[str, Any]) -> list[jax.Device]:
  """Returns descriptions of devices, see `targets.Target.topology`."""
  options = {k: v for k, v in topology.items() if k not in ('name', 'gpu')}
  if 'chips_per_host_bounds' in options:  # JSON has no tuples.
    options['chips_per_host_bounds'] = tuple(options['chips_per_host_bounds'])
  if platform == 'tpu':
    return topologies.get_topology_desc(
      platform='tpu', topology_name=topology['name'], **options
    ).devices
  return topologies.get_topology_desc(
    platform='cuda', target_config=topology['gpu'], topology=topology['name']
  ).devices


def report(compiled: jax.stages.Compiled) -> dict[str, Any]:
  """Returns what the compiler says of one device's program.

  Returns:
    {'peak', 'arguments', 'outputs', 'aliased', 'temporary': bytes,
    'kernels': launches of a step as the program lists them, 'collectives':
    {kind: number}}.
  """
  memory, text = compiled.memory_analysis(), compiled.as_text()
  entry = text[text.rindex('\nENTRY ') :]
  return {
    'peak': memory.peak_memory_in_bytes,
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes,
    'aliased': memory.alias_size_in_bytes,
    'temporary': memory.temp_size_in_bytes,
    'kernels': len(re.findall(r' (?:fusion|custom-call|copy)\(', entry)),
    'collectives': {
      kind: text.count(f' {kind}(') + text.count(f' {kind}-start(')
      for kind in COLLECTIVES
    },
  }


def answer(request: dict[str, Any]) -> dict[str, Any]:
  """Compiles one step and returns `report` and the seconds it took.

  Args:
    request: {'config': of `serialize.to_content`, 'stage': its name, 'single':
      on single frames, 'platform' and 'topology' of a target}.
  """
  config = serialize.from_content(request['config'], 'the request')
  found = devices(request['platform'], request['topology'])
  mesh = sharding.make_mesh(config.train.fsdp, np.array(found).tolist())
  step, arguments = costs.lowerable(
    config, request['stage'], mesh, single=request['single']
  )
  started = time.perf_counter()
  compiled = step.lower(*arguments).compile(
    compiler_options=QUICK[request['platform']]
  )
  return {**report(compiled), 'seconds': time.perf_counter() - started}


if __name__ == '__main__':
  print(json.dumps(answer(json.load(sys.stdin))))
