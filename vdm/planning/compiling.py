"""Asks a target's compiler what a stage's step needs, in a separate process.

The compiler of a device that is not there is a plugin that must be loaded
before anything else of jax, and may take minutes or crash: so it runs in a
process of its own, with a time limit.
"""

from collections.abc import Mapping
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from ml_collections import ConfigDict

from vdm.config import serialize
from vdm.planning import targets

# No accelerator is started, no metadata server asked, no lock file fought for.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'CUDA_VISIBLE_DEVICES': '-1',
  'TF_CPP_MIN_LOG_LEVEL': '3',
  # Without a device there is no autotuning, and the GEMMs that XLA writes
  # itself then have no tile sizes.
  'XLA_FLAGS': '--xla_gpu_enable_triton_gemm=false',
}
# Any of a platform's modules is its compiler.
_COMPILERS = {
  'tpu': ('libtpu',),
  'gpu': ('jax_cuda12_plugin', 'jax_cuda13_plugin'),
}
INSTALL = {
  'tpu': "pip install 'jax[tpu]'",
  'gpu': "pip install 'jax[cuda12]'",
}


class CompileError(RuntimeError):
  """The step could not be compiled; says why in a sentence."""


def is_installed(platform: str) -> bool:
  """Returns whether the compiler of 'gpu' or 'tpu' is installed."""
  return any(importlib.util.find_spec(name) for name in _COMPILERS[platform])


def measure(
  config: ConfigDict,
  stage: str,
  target: targets.Target,
  *,
  single: bool = False,
  seconds: float = 600.0,
  environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
  """Returns the compiler's account of one device's step.

  Args:
    config: the run's; the stage's batch is the global one.
    stage: name of the stage.
    target: the devices.
    single: the step on single frames.
    seconds: until the compiler is stopped.
    environ: environment variables in place of this process's.

  Returns:
    See `compile_step.report`; 'seconds' is what compiling took.

  Raises:
    CompileError: it takes longer, or fails.
  """
  request = {
    'config': serialize.to_content(config),
    'stage': stage,
    'single': single,
    'platform': target.platform,
    'topology': target.topology,
  }
  environ = dict(os.environ if environ is None else environ)
  try:
    done = subprocess.run(
      [sys.executable, '-m', 'vdm.planning.compile_step'],
      input=json.dumps(request),
      capture_output=True,
      text=True,
      timeout=seconds,
      env=environ | ENVIRONMENT,
      check=False,
    )
  except subprocess.TimeoutExpired:
    raise CompileError(f'compiling took longer than {seconds:.0f} s') from None
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise CompileError(f'the compiler failed: {last[:200]}')
  return json.loads(done.stdout.strip().splitlines()[-1])
