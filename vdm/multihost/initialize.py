"""Decides whether this process is one of several, and joins them if so.

`jax.distributed.initialize` must come before anything uses a backend and
raises outside a cluster, so `--distributed=auto` looks at the environment
first. What it looks for follows jax's own detection (jax/_src/clusters).
Without a cluster, three variables name the processes:
JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
JAX_PROCESS_ID. jax itself reads the first one only.
"""

from collections.abc import Mapping
import math
import os
import urllib.error
import urllib.request

from absl import logging
import jax

MODES = ('auto', 'on', 'off')

_METADATA = 'http://metadata.google.internal/computeMetadata/v1/instance/'


def should_initialize(
  environ: Mapping[str, str], tpu_workers: int = 0
) -> tuple[bool, str]:
  """Tells whether this process is one of several.

  Args:
    environ: environment variables.
    tpu_workers: number of workers that a Google Cloud TPU VM's metadata
      lists; 0 elsewhere.

  Returns:
    (whether to initialise, what was found).
  """
  if address := environ.get('JAX_COORDINATOR_ADDRESS'):
    return True, f'JAX_COORDINATOR_ADDRESS is {address}'
  if (slices := _number(environ, 'MEGASCALE_NUM_SLICES')) > 1:
    return True, f'{slices} TPU slices (MEGASCALE_NUM_SLICES)'
  hosts = [x for x in environ.get('TPU_WORKER_HOSTNAMES', '').split(',') if x]
  if len(hosts) > 1:
    return True, f'{len(hosts)} TPU workers (TPU_WORKER_HOSTNAMES)'
  if (tasks := _slurm_tasks(environ)) > 1:
    return True, f'{tasks} Slurm tasks'
  if (ranks := _number(environ, 'OMPI_COMM_WORLD_SIZE')) > 1:
    return True, f'{ranks} Open MPI ranks'
  if tpu_workers > 1:
    return True, f'{tpu_workers} TPU workers (metadata)'
  return False, 'one process'


def local_device_ids(environ: Mapping[str, str]) -> list[int] | None:
  """Returns the GPUs of this process where jax would choose wrongly.

  Under Slurm jax gives each process the one GPU of its local rank. With one
  task on each node that leaves the other GPUs idle, so all of the node's are
  named here; None leaves the choice to jax.
  """
  if _slurm_tasks(environ) < 2 or not _one_task_per_node(environ):
    return None
  if visible := environ.get('CUDA_VISIBLE_DEVICES'):
    gpus = len([x for x in visible.split(',') if x])
  else:
    gpus = _number(environ, 'SLURM_GPUS_ON_NODE')
  return list(range(gpus)) if gpus > 1 else None


def initialize(mode: str, wait: float = 300.0, silence: float = 60.0) -> None:
  """Joins the other processes; call it before anything else of jax.

  Args:
    mode: 'auto' decides by `should_initialize`, 'on' leaves it to jax to
      find the others and fails where there are none, 'off' does nothing.
    wait: seconds to wait for the others to come.
    silence: seconds after which `peers` gives one up.

  Raises:
    ValueError: unknown mode, or 'on' where jax finds no other process.
  """
  if mode not in MODES:
    raise ValueError(
      f'--distributed={mode} is unknown: it is one of {", ".join(MODES)}.'
    )
  if mode == 'off':
    logging.info('Distributed: off.')
    return
  wanted, reason = should_initialize(os.environ, _tpu_workers(os.environ))
  if mode == 'auto' and not wanted:
    logging.info('Distributed: no, %s.', reason)
    return
  ids = local_device_ids(os.environ)
  try:
    jax.distributed.initialize(
      num_processes=_integer('JAX_NUM_PROCESSES'),
      process_id=_integer('JAX_PROCESS_ID'),
      local_device_ids=ids,
      initialization_timeout=math.ceil(wait),
      # `peers` names the dead long before jax aborts.
      heartbeat_timeout_seconds=math.ceil(4 * silence),
    )
  except ValueError as error:
    raise ValueError(
      f'--distributed={mode} found {reason} and jax no others ({error}): set '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or use '
      '--distributed=off.'
    ) from error
  logging.info(
    'Distributed: %s; process %d of %d with %d devices%s.',
    reason,
    jax.process_index(),
    jax.process_count(),
    jax.local_device_count(),
    '' if ids is None else ' (all GPUs of the node)',
  )


def is_several() -> bool:
  """Whether this process has joined others."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def _integer(name: str) -> int | None:
  value = os.environ.get(name, '')
  return int(value) if value.isdigit() else None


def _number(environ: Mapping[str, str], name: str) -> int:
  value = environ.get(name, '')
  return int(value) if value.isdigit() else 0


def _slurm_tasks(environ: Mapping[str, str]) -> int:
  """Returns the tasks of the job step; 0 outside `srun`.

  In the shell of `salloc` or the script of `sbatch` SLURM_NTASKS is the whole
  job's, while this process is alone: only `srun` sets SLURM_STEP_NUM_TASKS.
  """
  if 'SLURM_PROCID' not in environ:
    return 0
  return _number(environ, 'SLURM_STEP_NUM_TASKS')


def _one_task_per_node(environ: Mapping[str, str]) -> bool:
  """Slurm writes tasks per node as '1(x4)', or '1,2' where they differ."""
  per_node = environ.get('SLURM_STEP_TASKS_PER_NODE', '')
  return {part.partition('(')[0] for part in per_node.split(',')} == {'1'}


def _tpu_workers(environ: Mapping[str, str]) -> int:
  """Returns how many workers the metadata of a TPU VM lists; 0 elsewhere."""
  on_tpu = any(
    name.startswith('accel') and name[5:].isdigit()
    for name in os.listdir('/dev')
  ) or any(
    name.isdigit()
    for name in (os.listdir('/dev/vfio') if os.path.isdir('/dev/vfio') else ())
  )
  if not on_tpu or environ.get('TPU_SKIP_MDS_QUERY'):
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
