"""Compiles a stage's step for devices that this machine does not have.

`compiling` runs this module as a process of its own: a request on standard
input, one line of JSON on standard output. TPUs need the package libtpu, NVIDIA
GPUs jax's CUDA plugin (extras `tpu` and `cuda12` of jax); no device is needed.
The environment that jax and the compilers read is `compiling.ENVIRONMENT`.

What comes back is the compiler's own account of one device. A GPU's lacks what
autotuning adds on the device: cuDNN's workspaces.
"""

import collections
import json
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies
import numpy as np

from vdm.config import serialize
from vdm.models import attention
from vdm.planning import costs
from vdm.planning import programs
from vdm.training import sharding

SMALL = 2**16  # Bytes that take less time than starting a kernel.
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
    'launches': of a step, 'small_launches': those that touch less than
    `SMALL` bytes, 'touched': bytes of all, 'kinds': {name: [launches, bytes]}
    from those that touch most, 'collectives': {kind: number}}.
  """
  memory, text = compiled.memory_analysis(), compiled.as_text()
  launches = programs.launches(text)
  kinds = collections.defaultdict(lambda: [0, 0])
  for launch in launches:
    kinds[launch.name][0] += 1
    kinds[launch.name][1] += launch.touched
  return {
    'peak': memory.peak_memory_in_bytes,
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes,
    'aliased': memory.alias_size_in_bytes,
    'temporary': memory.temp_size_in_bytes,
    'launches': len(launches),
    'small_launches': sum(launch.touched < SMALL for launch in launches),
    'touched': sum(launch.touched for launch in launches),
    'kinds': dict(sorted(kinds.items(), key=lambda item: -item[1][1])),
    'collectives': programs.collectives(text),
  }


def assume_cudnn() -> None:
  """Lets jax trace fused attention for a GPU that is not here.

  It would ask this machine for its cuDNN and its GPU's generation.
  """
  from jax._src.cudnn import fused_attention_stablehlo as fused

  fused.check_cudnn_version = lambda: 91000
  fused.check_compute_capability = lambda capability: capability == '8.0'
  fused.is_cuda_compute_capability_equal = lambda capability: False


def answer(request: dict[str, Any]) -> dict[str, Any]:
  """Compiles one step and returns `report` and the seconds it took.

  Args:
    request: {'config': of `serialize.to_content`, 'stage': its name, 'single':
      on single frames, 'platform' and 'topology' of a target}.
  """
  config = serialize.from_content(request['config'], 'the request')
  found = devices(request['platform'], request['topology'])
  if request['platform'] == 'gpu' and config.model.attention == 'cudnn':
    assume_cudnn()
  mesh = sharding.make_mesh(config.train.fsdp, np.array(found).tolist())
  started = time.perf_counter()
  with attention.traced_for(request['platform']):
    step, arguments = costs.lowerable(
      config, request['stage'], mesh, single=request['single']
    )
    lowered = step.lower(*arguments)
  compiled = lowered.compile(compiler_options=QUICK[request['platform']])
  return {**report(compiled), 'seconds': time.perf_counter() - started}


if __name__ == '__main__':
  print(json.dumps(answer(json.load(sys.stdin))))
