"""What started this process: alone, or as one of several, and which of them.

Pure functions of the environment, and one question to the metadata of a TPU VM.
jax finds the other processes by itself (jax/_src/clusters) on TPU VMs, GKE,
under Slurm and under Open MPI up to version 4. torchrun says who is who in
variables of its own. MPICH, Intel MPI and Open MPI from version 5 on tell rank
and size and no address: JAX_COORDINATOR_ADDRESS (host:port of the first
process) has to. Without any launcher, JAX_NUM_PROCESSES and JAX_PROCESS_ID name
the processes, too.
"""

from collections.abc import Mapping
import glob
import re
from typing import NamedTuple
import urllib.error
import urllib.request

from absl import logging

_METADATA = 'http://metadata.google.internal/computeMetadata/v1/instance/'


class Place(NamedTuple):
  """Which process this is; None leaves it to jax to find out.

  Attributes:
    address: host:port of the first process.
    count: processes of the run.
    index: of this one, from 0.
  """

  address: str | None
  count: int | None
  index: int | None


class _Ranks(NamedTuple):
  """A launcher's variables of size, rank, and rank and size on the node."""

  title: str
  size: str
  rank: str
  local_rank: str
  local_size: str


_TORCHRUN = _Ranks(
  'torchrun processes',
  'WORLD_SIZE',
  'RANK',
  'LOCAL_RANK',
  'LOCAL_WORLD_SIZE',
)
_MPI = (
  _Ranks(
    'Open MPI ranks',
    'OMPI_COMM_WORLD_SIZE',
    'OMPI_COMM_WORLD_RANK',
    'OMPI_COMM_WORLD_LOCAL_RANK',
    'OMPI_COMM_WORLD_LOCAL_SIZE',
  ),
  _Ranks(
    'MPI ranks (PMI_SIZE)',
    'PMI_SIZE',
    'PMI_RANK',
    'MPI_LOCALRANKID',
    'MPI_LOCALNRANKS',
  ),
)
_OPEN_MPI_4 = 'OMPI_MCA_orte_hnp_uri'  # What jax's own detection reads.


def find(environ: Mapping[str, str], tpu_workers: int = 0) -> str | None:
  """Returns what says that this process is one of several; None: nothing does.

  Args:
    environ: environment variables.
    tpu_workers: see `tpu_workers`; 0 elsewhere.
  """
  if address := environ.get('JAX_COORDINATOR_ADDRESS'):
    return f'JAX_COORDINATOR_ADDRESS is {address}'
  workers = environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
  counts = {
    'TPU slices (MEGASCALE_NUM_SLICES)': integer(
      environ, 'MEGASCALE_NUM_SLICES'
    ),
    'TPU workers (TPU_WORKER_HOSTNAMES)': len([x for x in workers if x]),
    'Slurm tasks': _slurm_tasks(environ),
    **{x.title: integer(environ, x.size) for x in _MPI},
    'TPU workers (metadata)': tpu_workers,
  }
  if _under_torchrun(environ):
    counts[_TORCHRUN.title] = integer(environ, _TORCHRUN.size)
  return next((f'{n} {what}' for what, n in counts.items() if n > 1), None)


def place(environ: Mapping[str, str]) -> Place:
  """Returns which process this is, where the environment says so.

  Raises:
    ValueError: ranks are known, and no address of the first one.
  """
  address = environ.get('JAX_COORDINATOR_ADDRESS')
  count = integer(environ, 'JAX_NUM_PROCESSES', None)
  index = integer(environ, 'JAX_PROCESS_ID', None)
  if count is not None or index is not None:
    return Place(None, count, index)  # jax reads the address itself.
  if _under_torchrun(environ):
    if not address:
      # At its own port torchrun keeps a store while the processes run.
      port = integer(environ, 'MASTER_PORT') + 1
      address = f'{environ["MASTER_ADDR"]}:{port}'
    ranks = _TORCHRUN
  else:
    ranks = next((x for x in _MPI if integer(environ, x.size) > 1), None)
    if ranks is None or environ.get(_OPEN_MPI_4) or _slurm_tasks(environ) > 1:
      return Place(None, None, None)
    if not address:
      raise ValueError(
        f'{ranks.title} say who is who and not where: set '
        'JAX_COORDINATOR_ADDRESS to the host of rank 0 and a free port, as in '
        'host:8476, or use --distributed=off'
      )
  return Place(
    address, integer(environ, ranks.size), integer(environ, ranks.rank, None)
  )


def local_device_ids(environ: Mapping[str, str]) -> list[int] | None:
  """Returns the GPUs of this process; None leaves the choice to jax.

  Under Slurm jax takes the GPU of the process's local rank. That is right for
  one task per GPU where each sees all of them. One task on each node would
  leave the node's other GPUs idle, and with --gpus-per-task Slurm shows each
  task its own, of which the first has number 0. Here the tasks of a node divide
  the GPUs that they all see, and a task takes all that only it sees.

  Of torchrun and MPI, each of several processes of a node has the GPU of its
  rank there, which is what these launchers are told to start one process for.
  """
  tasks = _slurm_tasks_on_node(environ)
  if _slurm_tasks(environ) < 2:
    return _gpu_of_rank(environ)
  if not tasks:
    return None
  gpus = integer(environ, 'SLURM_GPUS_ON_NODE')
  if visible := environ.get('CUDA_VISIBLE_DEVICES'):
    gpus = len([x for x in visible.split(',') if x])
    own = gpus == integer(environ, 'SLURM_GPUS_PER_TASK') or gpus < tasks
  else:
    own = False
  if own:
    return list(range(gpus))
  first, share = integer(environ, 'SLURM_LOCALID'), gpus // tasks
  return list(range(first * share, (first + 1) * share)) if share else None


def tpu_workers(environ: Mapping[str, str]) -> int:
  """Returns how many workers a TPU VM's metadata lists, over all slices.

  0 elsewhere, and where the metadata server does not answer.
  """
  chips = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  if not chips or environ.get('TPU_SKIP_MDS_QUERY'):
    return 0
  try:
    workers = len(_metadata('worker-network-endpoints').split(','))
    return workers * slices(_metadata('tpu-env'))
  except (urllib.error.URLError, TimeoutError) as error:
    logging.warning('The metadata server of this TPU is silent: %s.', error)
    return 0


def slices(tpu_env: str) -> int:
  """Returns the number of slices of a run, of lines `NAME: 'value'`.

  Slices of one host each know of the others by this alone.
  """
  found = re.search(r"^MEGASCALE_NUM_SLICES:\s*'?(\d+)", tpu_env, re.MULTILINE)
  return int(found[1]) if found else 1


def integer(
  environ: Mapping[str, str], name: str, default: int | None = 0
) -> int | None:
  """Returns a variable's number, or `default` if it is none."""
  value = environ.get(name, '')
  return int(value) if value.isdigit() else default


def _metadata(attribute: str) -> str:
  request = urllib.request.Request(
    f'{_METADATA}attributes/{attribute}', headers={'Metadata-Flavor': 'Google'}
  )
  try:
    with urllib.request.urlopen(request, timeout=5) as response:
      return response.read().decode()
  except urllib.error.HTTPError as error:
    if error.code == 404:  # No such attribute.
      return ''
    raise


def _under_torchrun(environ: Mapping[str, str]) -> bool:
  # Other tools set WORLD_SIZE and RANK, too; this one only torchrun sets.
  return 'TORCHELASTIC_RUN_ID' in environ and 'MASTER_ADDR' in environ


def _gpu_of_rank(environ: Mapping[str, str]) -> list[int] | None:
  for ranks in (_TORCHRUN, *_MPI):
    if ranks is _TORCHRUN and not _under_torchrun(environ):
      continue
    if integer(environ, ranks.local_size) > 1:
      visible = environ.get('CUDA_VISIBLE_DEVICES', '')
      alone = visible and ',' not in visible
      return [0 if alone else integer(environ, ranks.local_rank)]
  return None


def _slurm_tasks(environ: Mapping[str, str]) -> int:
  """Returns the tasks of the job step; 0 outside `srun`.

  In the shell of `salloc` or the script of `sbatch` SLURM_NTASKS is the whole
  job's, while this process is alone: only `srun` sets SLURM_STEP_NUM_TASKS.
  """
  inside = 'SLURM_PROCID' in environ
  return integer(environ, 'SLURM_STEP_NUM_TASKS') if inside else 0


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
  node = integer(environ, 'SLURM_NODEID')
  return counts[node] if node < len(counts) else 0
