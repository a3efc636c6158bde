"""Detects whether this process is one of several, and joins them if so.

`jax.distributed.initialize` must run before anything uses a backend and raises
outside a cluster, so `--distributed=auto` inspects the environment first, for
what jax's own detection (jax/_src/clusters) looks for. Without a cluster, three
variables name the processes: JAX_COORDINATOR_ADDRESS (host:port of process 0),
JAX_NUM_PROCESSES and JAX_PROCESS_ID. jax itself reads the first one only.
"""

from collections.abc import Mapping
import glob
import math
import os
import re
import urllib.error
import urllib.request

from absl import logging
import jax

from vdm.common import errors

MODES = ('auto', 'on', 'off')

_METADATA = 'http://metadata.google.internal/computeMetadata/v1/instance/'


def should_initialize(
  environ: Mapping[str, str], tpu_workers: int = 0
) -> tuple[bool, str]:
  """Returns whether this process is one of several, and what was found.

  Args:
    environ: environment variables.
    tpu_workers: number of workers in the metadata of a Google Cloud TPU VM; 0
      elsewhere.
  """
  if address := environ.get('JAX_COORDINATOR_ADDRESS'):
    return True, f'JAX_COORDINATOR_ADDRESS is {address}'
  workers = environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
  for what, count in {
    'TPU slices (MEGASCALE_NUM_SLICES)': _integer(
      environ, 'MEGASCALE_NUM_SLICES'
    ),
    'TPU workers (TPU_WORKER_HOSTNAMES)': len([x for x in workers if x]),
    'Slurm tasks': _slurm_tasks(environ),
    'Open MPI ranks': _integer(environ, 'OMPI_COMM_WORLD_SIZE'),
    'TPU workers (metadata)': tpu_workers,
  }.items():
    if count > 1:
      return True, f'{count} {what}'
  return False, 'one process'


def local_device_ids(environ: Mapping[str, str]) -> list[int] | None:
  """Returns the GPUs of this process; None leaves the choice to jax.

  Under Slurm jax takes the GPU of the process's local rank. That is right for
  one task per GPU where each sees all of them. One task on each node would
  leave the node's other GPUs idle, and with --gpus-per-task Slurm shows each
  task its own, of which the first has number 0. Here the tasks of a node divide
  the GPUs that they all see, and a task takes all that only it sees.
  """
  tasks = _slurm_tasks_on_node(environ)
  if _slurm_tasks(environ) < 2 or not tasks:
    return None
  gpus = _integer(environ, 'SLURM_GPUS_ON_NODE')
  if visible := environ.get('CUDA_VISIBLE_DEVICES'):
    gpus = len([x for x in visible.split(',') if x])
    own = gpus == _integer(environ, 'SLURM_GPUS_PER_TASK') or gpus < tasks
  else:
    own = False
  if own:
    return list(range(gpus))
  first, share = _integer(environ, 'SLURM_LOCALID'), gpus // tasks
  return list(range(first * share, (first + 1) * share)) if share else None


def initialize(
  mode: str, join_timeout: float = 300.0, process_timeout: float = 60.0
) -> None:
  """Joins the other processes; call it before anything else of jax.

  Args:
    mode: 'auto' decides by `should_initialize`, 'on' leaves it to jax to find
      the other processes and fails where there are none, 'off' does nothing.
    join_timeout: seconds to wait for the other processes.
    process_timeout: seconds of silence after which a process counts as dead.

  Raises:
    UsageError: unknown mode, or 'on' where jax finds no other process.
  """
  if mode not in MODES:
    raise errors.UsageError(
      f'--distributed={mode} is unknown: it is one of {", ".join(MODES)}.'
    )
  several, reason = False, '--distributed=off'
  if mode != 'off':
    several, reason = should_initialize(os.environ, _tpu_workers(os.environ))
  if not several and mode != 'on':
    logging.info('Distributed: no, %s.', reason)
    return
  ids = local_device_ids(os.environ)
  try:
    jax.distributed.initialize(
      num_processes=_integer(os.environ, 'JAX_NUM_PROCESSES', None),
      process_id=_integer(os.environ, 'JAX_PROCESS_ID', None),
      local_device_ids=ids,
      initialization_timeout=math.ceil(join_timeout),
      # `heartbeat` names dead processes long before jax aborts.
      heartbeat_timeout_seconds=math.ceil(4 * process_timeout),
    )
  except ValueError as error:
    raise errors.UsageError(
      f'--distributed={mode} found {reason}, but jax found no other process '
      f'({error}): set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and '
      'JAX_PROCESS_ID, or use --distributed=off.'
    ) from error
  logging.info(
    'Distributed: %s; process %d of %d with %d devices%s.',
    reason,
    jax.process_index(),
    jax.process_count(),
    jax.local_device_count(),
    '' if ids is None else f' (GPUs {ids} that it sees)',
  )


def devices() -> list[jax.Device]:
  """Returns the devices of all processes; the first use of the backend.

  Raises:
    UsageError: JAX_PLATFORMS names a platform that this machine or this
      installation of jax does not have.
  """
  try:
    return jax.devices()
  # Without its plugin, jax says AssertionError() and nothing else.
  except (AssertionError, RuntimeError) as error:
    platforms = jax.config.jax_platforms
    if not platforms:
      raise
    why = ' '.join(str(error).split())
    raise errors.UsageError(
      f'jax has no device for JAX_PLATFORMS={platforms}'
      f'{f" ({why[:200]})" if why else ""}: install jax for it, see '
      'launch/setup.sh, or unset JAX_PLATFORMS.'
    ) from error


def is_several() -> bool:
  """Returns whether this process has joined others."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def _integer(
  environ: Mapping[str, str], name: str, default: int | None = 0
) -> int | None:
  value = environ.get(name, '')
  return int(value) if value.isdigit() else default


def _slurm_tasks(environ: Mapping[str, str]) -> int:
  """Returns the tasks of the job step; 0 outside `srun`.

  In the shell of `salloc` or the script of `sbatch` SLURM_NTASKS is the whole
  job's, while this process is alone: only `srun` sets SLURM_STEP_NUM_TASKS.
  """
  inside = 'SLURM_PROCID' in environ
  return _integer(environ, 'SLURM_STEP_NUM_TASKS') if inside else 0


def _slurm_tasks_on_node(environ: Mapping[str, str]) -> int:
  """Returns the tasks of the job step on this node; 0 if not known.

  Slurm writes those of all nodes as '8(x2),4'.
  """
  counts = []
  for part in environ.get('SLURM_STEP_TASKS_PER_NODE', '').split(','):
    found = re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part)
    if not found:
      return 0
    counts += [int(found[1])] * int(found[2] or 1)
  node = _integer(environ, 'SLURM_NODEID')
  return counts[node] if node < len(counts) else 0


def _tpu_workers(environ: Mapping[str, str]) -> int:
  """Returns how many workers the metadata of a TPU VM lists; 0 elsewhere."""
  chips = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  if not chips or environ.get('TPU_SKIP_MDS_QUERY'):
    return 0
  request = urllib.request.Request(
    _METADATA + 'attributes/worker-network-endpoints',
    headers={'Metadata-Flavor': 'Google'},
  )
  try:
    with urllib.request.urlopen(request, timeout=5) as response:
      return len(response.read().decode().split(','))
  except (urllib.error.URLError, TimeoutError) as error:
    logging.warning('The metadata server of this TPU is silent: %s.', error)
    return 0
