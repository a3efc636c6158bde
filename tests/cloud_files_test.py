"""launch/skypilot.yaml and launch/gke_jobset.yaml say what they mean to."""

import json
import math
import os
import re
import subprocess
import sys

from conftest import ROOT
import pytest
import yaml

# What a command line makes of the configuration.
PARSE = """
import sys
from absl import flags
from vdm import main
from vdm.config import flag
flag.parse(['vdm.main', *sys.argv[1:]])
print(main.workdir(), flags.FLAGS.config.data.root)
"""


def parsed(arguments):
  """Returns the folders of the run and of the data that vdm.main would use."""
  done = subprocess.run(
    [sys.executable, '-c', PARSE, *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


@pytest.fixture(scope='module')
def sky():
  return yaml.safe_load((ROOT / 'launch/skypilot.yaml').read_text())


def test_sky_takes_a_gpu_or_a_tpu_as_spot(sky):
  resources = sky['resources']
  assert resources['use_spot'] is True
  names = [choice['accelerators'] for choice in resources['any_of']]
  assert any(name.startswith('tpu-') for name in names)
  assert any(re.fullmatch(r'\w[\w-]*:\d+', name) for name in names)
  for choice in resources['any_of']:
    # Runtime versions are of TPUs only.
    assert choice['accelerators'].startswith('tpu-') == (
      'accelerator_args' in choice
    )
  assert resources['job_recovery']['recover_on_exit_codes'] == [75]
  # The bucket of the file mounts and of the run is the same cloud's.
  assert resources['infra'] == 'gcp'
  (mount,) = sky['file_mounts'].values()
  assert mount == {'source': 'gs://${BUCKET}', 'mode': 'MOUNT'}
  assert sky['envs']['BUCKET'] is None  # SkyPilot then asks for it.


# Stands in for launch/local.sh, and says what it was given.
LOCAL = f"""#!/bin/bash
exec {sys.executable} -c 'import json, os, sys
jax = {{k: v for k, v in os.environ.items() if k.startswith("JAX_")}}
print(json.dumps([sys.argv[1:], jax]))' "$@"
"""


def run_sky(sky, folder, **environ):
  """Returns the arguments and JAX_* variables of the run section's command."""
  (folder / 'launch').mkdir()
  (folder / 'launch/local.sh').write_text(LOCAL)
  given = {k: v for k, v in sky['envs'].items() if v} | {'BUCKET': 'mine'}
  done = subprocess.run(
    ['bash', '-c', sky['run']],
    cwd=folder,
    env={'PATH': f'{folder}:{os.environ["PATH"]}', **given, **environ},
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout)


def test_sky_trains_from_and_into_the_bucket(sky, tmp_path):
  arguments, jax = run_sky(sky, tmp_path)
  assert parsed(arguments) == ['gs://mine/runs/ucf101', '/bucket/data']
  assert jax == {}
  (mounted,) = sky['file_mounts']
  assert mounted == '/bucket'


@pytest.mark.parametrize('gpus', [True, False])
def test_several_sky_nodes_with_gpus_are_told_of_each_other(
  sky, tmp_path, gpus
):
  smi = tmp_path / 'nvidia-smi'
  smi.write_text(f'#!/bin/bash\nexit {0 if gpus else 9}\n')
  smi.chmod(0o755)
  _, jax = run_sky(
    sky,
    tmp_path,
    SKYPILOT_NUM_NODES='2',
    SKYPILOT_NODE_RANK='1',
    SKYPILOT_NODE_IPS='10.0.0.7\n10.0.0.9',
  )
  wanted = {
    'JAX_COORDINATOR_ADDRESS': '10.0.0.7:8476',
    'JAX_NUM_PROCESSES': '2',
    'JAX_PROCESS_ID': '1',
  }
  # The hosts of a TPU find each other.
  assert jax == (wanted if gpus else {})


def test_sky_scripts_are_shell(sky):
  for name in ('setup', 'run'):
    subprocess.run(['bash', '-n'], input=sky[name], text=True, check=True)
    scripts = re.findall(r'bash (\S+\.sh)', sky[name])
    assert scripts
    for script in scripts:
      assert (ROOT / script).is_file()
  for file in re.findall(r'-r (\S+)', sky['setup']):
    assert '--hash=sha256:' in (ROOT / file).read_text()


GKE = ROOT / 'launch/gke_jobset.yaml'


@pytest.fixture(scope='module')
def jobset():
  return yaml.safe_load(GKE.read_text())


@pytest.fixture(scope='module')
def job(jobset):
  (replicated,) = jobset['spec']['replicatedJobs']
  assert replicated['replicas'] == 1
  return replicated['template']['spec']


@pytest.fixture(scope='module')
def pod(job):
  return job['template']['spec']


@pytest.fixture(scope='module')
def container(pod):
  (container,) = pod['containers']
  return container


def chips(topology):
  return math.prod(map(int, topology.split('x')))


def test_gke_topology_is_hosts_times_chips(job, pod, container):
  assert job['completionMode'] == 'Indexed'
  hosts = job['parallelism']
  assert job['completions'] == hosts
  selectors = pod['nodeSelector']
  topology = selectors['cloud.google.com/gke-tpu-topology']
  chips_of_host = container['resources']['limits']['google.com/tpu']
  assert chips(topology) == hosts * chips_of_host
  table = re.findall(
    r'^#   (tpu\S+) +([\dx]+) +(\d+)$', GKE.read_text(), re.MULTILINE
  )
  accelerator = selectors['cloud.google.com/gke-tpu-accelerator']
  assert (accelerator, topology, str(hosts)) in table
  assert {name for name, *_ in table} == {'tpu-v6e-slice', 'tpu7x'}
  for name, other, count in table:
    assert chips(other) == int(count) * chips_of_host, (name, other)
    # A torus of two dimensions, and of three.
    assert other.count('x') == (2 if name == 'tpu7x' else 1)


def test_gke_command(container):
  assert container['image'].endswith(':tpu')
  assert 'command' not in container  # The image's entry point.
  module, *arguments = container['args']
  assert module == 'vdm.main'
  assert parsed(arguments) == ['gs://BUCKET/runs/ucf101', '/bucket/data']


def test_gke_bucket_is_mounted_where_the_data_is_read(job, pod, container):
  mounts = {m['name']: m['mountPath'] for m in container['volumeMounts']}
  volumes = {volume['name']: volume for volume in pod['volumes']}
  assert mounts.keys() == volumes.keys()
  csi = volumes['bucket']['csi']
  assert mounts['bucket'] == '/bucket' and csi['readOnly'] is True
  assert csi['volumeAttributes']['bucketName'] == 'BUCKET'
  annotations = job['template']['metadata']['annotations']
  assert annotations['gke-gcsfuse/volumes'] == 'true'
  assert volumes['memory']['emptyDir'] == {'medium': 'Memory'}
  assert mounts['memory'] == '/dev/shm'


def outcome(jobset, job, code):
  """Returns what happens when a container ends with an exit code.

  As Kubernetes has it: the first rule of the pod that matches makes the job
  fail with reason PodFailurePolicy, else a backoffLimit of 0 makes it fail with
  BackoffLimitExceeded; then the JobSet's first rule for the reason, by default
  RestartJobSet.
  """
  assert job['backoffLimit'] == 0
  assert job['template']['spec']['restartPolicy'] == 'Never'
  reason = 'BackoffLimitExceeded'
  for rule in job['podFailurePolicy']['rules']:
    codes = rule['onExitCodes']
    assert codes['operator'] == 'In' and codes['containerName'] == 'vdm'
    if code in codes['values']:
      assert rule['action'] == 'FailJob'
      reason = 'PodFailurePolicy'
  for rule in jobset['spec']['failurePolicy']['rules']:
    if reason in rule['onJobFailureReasons']:
      return rule['action']
  return 'RestartJobSet'


def test_gke_restarts_what_was_stopped(jobset, job):
  assert outcome(jobset, job, 75) == 'RestartJobSet'
  # Killed with its node, and jax's abort when the first process is gone.
  assert outcome(jobset, job, 137) == 'RestartJobSet'
  assert outcome(jobset, job, 134) == 'RestartJobSet'
  for code in (1, 2):
    assert outcome(jobset, job, code) == 'FailJobSet'
  assert jobset['spec']['failurePolicy']['maxRestarts'] > 0


def test_gke_placeholders_are_the_documented_ones():
  text = GKE.read_text()
  values = ' '.join(map(str, leaves(yaml.safe_load(text))))
  assert set(re.findall(r'\b[A-Z]{6,}\b', values)) == {'REGISTRY', 'BUCKET'}
  for name in ('REGISTRY', 'BUCKET'):
    assert f"-e 's|{name}|" in text


def leaves(tree):
  if isinstance(tree, dict):
    tree = list(tree.values())
  if isinstance(tree, list):
    return [leaf for value in tree for leaf in leaves(value)]
  return [tree]
