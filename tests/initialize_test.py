"""Which environments are taken for several processes."""

import os
import subprocess
import sys

from conftest import ROOT
import pytest

from vdm.common import errors
from vdm.multihost import initialize
from vdm.multihost import launchers

SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_PROCID': '0',
  'SLURM_LOCALID': '0',
  'SLURM_NTASKS': '2',
  'SLURM_STEP_NUM_TASKS': '2',
  'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
  'SLURM_GPUS_ON_NODE': '8',
}
# Eight tasks, or two, on each of two nodes; the fourth or second of a node.
EIGHT = {
  'SLURM_STEP_TASKS_PER_NODE': '8(x2)',
  'SLURM_STEP_NUM_TASKS': '16',
  'SLURM_NODEID': '1',
  'SLURM_LOCALID': '3',
}
TWO = {
  'SLURM_STEP_TASKS_PER_NODE': '2(x2)',
  'SLURM_STEP_NUM_TASKS': '4',
  'SLURM_LOCALID': '1',
}

TORCHRUN = {  # Four processes on two nodes; this is the second of the second.
  'TORCHELASTIC_RUN_ID': 'none',
  'MASTER_ADDR': 'node0',
  'MASTER_PORT': '29500',
  'WORLD_SIZE': '4',
  'RANK': '3',
  'LOCAL_RANK': '1',
  'LOCAL_WORLD_SIZE': '2',
}
OPEN_MPI = {
  'OMPI_COMM_WORLD_SIZE': '4',
  'OMPI_COMM_WORLD_RANK': '2',
  'OMPI_COMM_WORLD_LOCAL_RANK': '0',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
}
MPICH = {'PMI_SIZE': '4', 'PMI_RANK': '2'}
ADDRESS = {'JAX_COORDINATOR_ADDRESS': 'host:1234'}


@pytest.mark.parametrize(
  'environ, tpu_workers, found',
  [
    ({'JAX_COORDINATOR_ADDRESS': 'host:1234'}, 0, 'host:1234'),
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c'}, 0, '3 TPU workers'),
    ({'MEGASCALE_NUM_SLICES': '2'}, 0, '2 TPU slices'),
    ({'OMPI_COMM_WORLD_SIZE': '4'}, 0, '4 Open MPI ranks'),
    ({'PMI_SIZE': '4', 'PMI_RANK': '1'}, 0, '4 MPI ranks'),
    (TORCHRUN, 0, '4 torchrun processes'),
    (SLURM, 0, '2 Slurm tasks'),
    ({}, 16, '16 TPU workers'),
  ],
)
def test_several_processes(environ, tpu_workers, found):
  assert found in launchers.find(environ, tpu_workers)


@pytest.mark.parametrize(
  'environ',
  [
    {},
    {'JAX_COORDINATOR_ADDRESS': ''},
    # One host of a TPU VM, of Kaggle and of Colab.
    {'TPU_WORKER_HOSTNAMES': 'localhost'},
    {'TPU_WORKER_HOSTNAMES': '', 'TPU_WORKER_ID': '0'},
    {'MEGASCALE_NUM_SLICES': '1'},
    {'OMPI_COMM_WORLD_SIZE': '1'},
    {'PMI_SIZE': '1', 'PMI_RANK': '0'},
    TORCHRUN | {'WORLD_SIZE': '1'},
    # Not of torchrun.
    {'WORLD_SIZE': '4', 'RANK': '0', 'MASTER_ADDR': 'a', 'MASTER_PORT': '1'},
    # `srun --pty bash` with one task.
    SLURM | {'SLURM_STEP_NUM_TASKS': '1', 'SLURM_STEP_TASKS_PER_NODE': '1'},
    # The shell of `salloc -n 4`: no step, so no other process.
    {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'},
    # The script of `sbatch -n 4`, outside srun.
    {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'},
  ],
)
def test_one_process(environ):
  assert launchers.find(environ, 1) is None


@pytest.mark.parametrize(
  'changes, ids',
  [
    ({}, list(range(8))),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, [0, 1, 2, 3]),
    ({'SLURM_GPUS_ON_NODE': '1'}, [0]),
    # No GPUs, or Slurm does not say.
    ({'SLURM_GPUS_ON_NODE': ''}, None),
    ({'SLURM_STEP_TASKS_PER_NODE': ''}, None),
    # One task for each GPU, and each sees all (--ntasks-per-node=8).
    (EIGHT, [3]),
    (EIGHT | {'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7'}, [3]),
    # Each sees its own (--gpus-per-task=1): with cgroups that is always 0.
    (EIGHT | {'CUDA_VISIBLE_DEVICES': '0', 'SLURM_GPUS_PER_TASK': '1'}, [0]),
    (EIGHT | {'CUDA_VISIBLE_DEVICES': '3'}, [0]),
    # --gpus-per-task=1 --gpu-bind=none: all see all.
    (
      EIGHT
      | {
        'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7',
        'SLURM_GPUS_PER_TASK': '1',
      },
      [3],
    ),
    # Two tasks with four GPUs each, their own and divided.
    (
      TWO | {'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'SLURM_GPUS_PER_TASK': '4'},
      [0, 1, 2, 3],
    ),
    (TWO | {'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7'}, [4, 5, 6, 7]),
    (TWO, [4, 5, 6, 7]),
    # Nodes that differ: this is the second, with two tasks for eight GPUs.
    (
      {
        'SLURM_STEP_TASKS_PER_NODE': '1,2',
        'SLURM_STEP_NUM_TASKS': '3',
        'SLURM_NODEID': '1',
        'SLURM_LOCALID': '1',
      },
      [4, 5, 6, 7],
    ),
    # One task alone: no cluster.
    ({'SLURM_STEP_TASKS_PER_NODE': '1', 'SLURM_STEP_NUM_TASKS': '1'}, None),
  ],
)
def test_slurm_tasks_get_the_gpus_of_their_node(changes, ids):
  assert launchers.local_device_ids(SLURM | changes) == ids


@pytest.mark.parametrize(
  'environ, place',
  [
    ({}, (None, None, None)),
    (SLURM, (None, None, None)),
    (
      ADDRESS | {'JAX_NUM_PROCESSES': '4', 'JAX_PROCESS_ID': '0'},
      (None, 4, 0),
    ),
    # Beside the port of torchrun's own store.
    (TORCHRUN, ('node0:29501', 4, 3)),
    (TORCHRUN | ADDRESS, ('host:1234', 4, 3)),
    (OPEN_MPI | ADDRESS, ('host:1234', 4, 2)),
    (MPICH | ADDRESS, ('host:1234', 4, 2)),
    # Open MPI 4, which jax knows, and ranks that Slurm started.
    (
      OPEN_MPI | {'OMPI_MCA_orte_hnp_uri': '1.0;tcp://10.0.0.1:34911'},
      (None, None, None),
    ),
    (SLURM | MPICH, (None, None, None)),
  ],
)
def test_which_process_this_is(environ, place):
  assert launchers.place(environ) == place


@pytest.mark.parametrize('environ', [OPEN_MPI, MPICH])
def test_ranks_without_an_address_say_what_to_set(environ):
  with pytest.raises(ValueError, match='JAX_COORDINATOR_ADDRESS to the host'):
    launchers.place(environ)


@pytest.mark.parametrize(
  'environ, ids',
  [
    (TORCHRUN, [1]),
    (TORCHRUN | {'CUDA_VISIBLE_DEVICES': '5'}, [0]),
    (TORCHRUN | {'LOCAL_WORLD_SIZE': '1', 'LOCAL_RANK': '0'}, None),
    (OPEN_MPI, [0]),
    (MPICH, None),
  ],
)
def test_a_rank_has_the_gpu_of_its_number(environ, ids):
  assert launchers.local_device_ids(environ) == ids


def test_slices_of_one_host_know_of_each_other_by_metadata(monkeypatch):
  """Their workers' list has one name, and no variable is set."""
  answers = {
    'worker-network-endpoints': 'one:two:10.0.0.1',
    'tpu-env': "ZONE: 'a'\nMEGASCALE_NUM_SLICES: '2'\nWORKER_ID: '0'\n",
  }
  monkeypatch.setattr(launchers, '_metadata', answers.get)
  monkeypatch.setattr(launchers.glob, 'glob', lambda _: ['/dev/accel0'])
  assert launchers.tpu_workers({}) == 2
  assert launchers.tpu_workers({'TPU_SKIP_MDS_QUERY': '1'}) == 0
  assert launchers.slices("ZONE: 'a'\n") == 1


@pytest.fixture
def joined(monkeypatch):
  """Records calls of jax.distributed.initialize instead of making them."""
  calls = []
  monkeypatch.setattr(
    initialize.jax.distributed,
    'initialize',
    lambda **kwargs: calls.append(kwargs),
  )
  monkeypatch.setattr(launchers, 'tpu_workers', lambda environ: 0)
  for name in ('JAX_COORDINATOR_ADDRESS', 'TPU_WORKER_HOSTNAMES', *SLURM):
    monkeypatch.delenv(name, raising=False)
  return calls


def test_modes(joined, monkeypatch):
  initialize.initialize('auto')
  initialize.initialize('off')
  assert joined == []
  initialize.initialize('on', 30, 15)
  assert joined == [
    {
      'coordinator_address': None,
      'num_processes': None,
      'process_id': None,
      'local_device_ids': None,
      'initialization_timeout': 30,
      'heartbeat_timeout_seconds': 60,
    }
  ]
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  initialize.initialize('off')
  initialize.initialize('auto')
  assert [call['local_device_ids'] for call in joined[1:]] == [list(range(8))]
  with pytest.raises(ValueError, match='--distributed=maybe is unknown'):
    initialize.initialize('maybe')


def test_three_variables_name_the_processes(joined, monkeypatch):
  for name, value in {
    'JAX_COORDINATOR_ADDRESS': 'host:1234',
    'JAX_NUM_PROCESSES': '4',
    'JAX_PROCESS_ID': '0',
  }.items():
    monkeypatch.setenv(name, value)
  initialize.initialize('auto')
  (call,) = joined
  assert (call['num_processes'], call['process_id']) == (4, 0)


def test_on_outside_a_cluster_says_what_to_do(joined, monkeypatch):
  def refuse(**_):
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(initialize.jax.distributed, 'initialize', refuse)
  with pytest.raises(ValueError, match='use --distributed=off'):
    initialize.initialize('on')


@pytest.mark.parametrize(
  'error', [AssertionError(), RuntimeError('Unable to initialize backend')]
)
def test_a_platform_that_is_not_there_is_one_sentence(monkeypatch, error):
  def refuse():
    raise error

  monkeypatch.setattr(initialize.jax, 'devices', refuse)
  with pytest.raises(errors.UsageError, match='no device for JAX_PLATFORMS='):
    initialize.devices()


@pytest.mark.parametrize(
  'environ, devices',
  [
    ({}, 2),
    ({'JAX_NUM_CPU_DEVICES': '3'}, 3),
    ({'XLA_FLAGS': '--xla_force_host_platform_device_count=4'}, 4),
  ],
)
def test_a_cpu_is_divided_unless_the_environment_says_otherwise(
  environ, devices
):
  code = (
    'from vdm.multihost import initialize; initialize.divide_cpu(2); '
    'print(len(initialize.devices())); import os; '
    'print("NPROC" in os.environ)'
  )
  kept = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  kept |= {'JAX_PLATFORMS': 'cpu', **environ}
  result = subprocess.run(
    [sys.executable, '-c', code], env=kept, cwd=ROOT, capture_output=True
  )
  # And a thread to spare, where devices wait for each other.
  wanted = [str(devices), str(not environ)]
  assert result.stdout.decode().split() == wanted, result.stderr
