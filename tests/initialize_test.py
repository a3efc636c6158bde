"""Which environments are taken for several processes."""

import pytest

from vdm.common import errors
from vdm.multihost import initialize

SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_PROCID': '0',
  'SLURM_LOCALID': '0',
  'SLURM_NTASKS': '2',
  'SLURM_STEP_NUM_TASKS': '2',
  'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
  'SLURM_GPUS_ON_NODE': '8',
}


@pytest.mark.parametrize(
  'environ, tpu_workers, found',
  [
    ({'JAX_COORDINATOR_ADDRESS': 'host:1234'}, 0, 'host:1234'),
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c'}, 0, '3 TPU workers'),
    ({'MEGASCALE_NUM_SLICES': '2'}, 0, '2 TPU slices'),
    ({'OMPI_COMM_WORLD_SIZE': '4'}, 0, '4 Open MPI ranks'),
    (SLURM, 0, '2 Slurm tasks'),
    ({}, 16, '16 TPU workers'),
  ],
)
def test_several_processes(environ, tpu_workers, found):
  wanted, reason = initialize.should_initialize(environ, tpu_workers)
  assert wanted
  assert found in reason


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
    # `srun --pty bash` with one task.
    SLURM | {'SLURM_STEP_NUM_TASKS': '1', 'SLURM_STEP_TASKS_PER_NODE': '1'},
    # The shell of `salloc -n 4`: no step, so no other process.
    {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'},
    # The script of `sbatch -n 4`, outside srun.
    {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'},
  ],
)
def test_one_process(environ):
  assert initialize.should_initialize(environ, 1) == (False, 'one process')


@pytest.mark.parametrize(
  'changes, ids',
  [
    ({}, list(range(8))),
    ({'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, [0, 1, 2, 3]),
    # One GPU on each node: jax chooses right.
    ({'SLURM_GPUS_ON_NODE': '1'}, None),
    ({'SLURM_GPUS_ON_NODE': ''}, None),
    # One task for each GPU: jax gives every task its own.
    (
      {'SLURM_STEP_TASKS_PER_NODE': '8(x2)', 'SLURM_STEP_NUM_TASKS': '16'},
      None,
    ),
    ({'SLURM_STEP_TASKS_PER_NODE': '1,2'}, None),
    # One task alone: no cluster.
    ({'SLURM_STEP_TASKS_PER_NODE': '1', 'SLURM_STEP_NUM_TASKS': '1'}, None),
  ],
)
def test_one_slurm_task_on_a_node_gets_all_its_gpus(changes, ids):
  assert initialize.local_device_ids(SLURM | changes) == ids


@pytest.fixture
def joined(monkeypatch):
  """Records calls of jax.distributed.initialize instead of making them."""
  calls = []
  monkeypatch.setattr(
    initialize.jax.distributed,
    'initialize',
    lambda **kwargs: calls.append(kwargs),
  )
  monkeypatch.setattr(initialize, '_tpu_workers', lambda environ: 0)
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
