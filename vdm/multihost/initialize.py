"""Joins the other processes of a run, if there are any.

`jax.distributed.initialize` must run before anything uses a backend and raises
outside a cluster, so `--distributed=auto` inspects the environment first, see
`launchers`.
"""

import math
import os

from absl import logging
import jax

from vdm.common import errors
from vdm.common import parallel
from vdm.multihost import coordination
from vdm.multihost import launchers

MODES = ('auto', 'on', 'off')


def initialize(
  mode: str, join_timeout: float = 300.0, process_timeout: float = 60.0
) -> None:
  """Joins the other processes; call it before anything else of jax.

  Args:
    mode: 'auto' decides by `launchers.find`, 'on' leaves it to jax to find
      the other processes and fails where there are none, 'off' does nothing.
    join_timeout: seconds to wait for the other processes.
    process_timeout: seconds of silence after which a process counts as dead.

  Raises:
    UsageError: unknown mode, or other processes are wanted or known of and
      cannot be found.
  """
  if mode not in MODES:
    raise errors.UsageError(
      f'--distributed={mode} is unknown: it is one of {", ".join(MODES)}.'
    )
  found = None
  if mode != 'off':
    found = launchers.find(os.environ, launchers.tpu_workers(os.environ))
  if not found and mode != 'on':
    why = '--distributed=off' if mode == 'off' else 'one process'
    logging.info('Distributed: no, %s.', why)
    return
  ids = launchers.local_device_ids(os.environ)
  try:
    place = launchers.place(os.environ)
    logging.info(
      'Joining the other processes: %s, for up to %.0f s.',
      found or '--distributed=on',
      join_timeout,
    )
    jax.distributed.initialize(
      coordinator_address=place.address,
      num_processes=place.count,
      process_id=place.index,
      local_device_ids=ids,
      initialization_timeout=math.ceil(join_timeout),
      # `heartbeat` names dead processes long before jax aborts.
      heartbeat_timeout_seconds=math.ceil(4 * process_timeout),
    )
  except ValueError as error:
    raise errors.UsageError(
      f'--distributed={mode} found {found or "one process"}, but jax found no '
      f'other process ({error}): set JAX_COORDINATOR_ADDRESS, '
      'JAX_NUM_PROCESSES and JAX_PROCESS_ID, or use --distributed=off.'
    ) from error
  logging.info(
    'Distributed: %s; process %d of %d%s.',
    found or '--distributed=on',
    *coordination.joined(),  # Without a device, which there may not be.
    '' if ids is None else f' with the GPUs {ids} that it sees',
  )


def divide_cpu(devices: int) -> None:
  """Makes the CPU of a single process act as several devices.

  Call it before the first use of the backend. What the environment says of the
  number of devices comes first; accelerators are not affected.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  told = 'JAX_NUM_CPU_DEVICES' in os.environ or 'device_count' in flags
  if devices > 1 and not told and not jax.distributed.is_initialized():
    jax.config.update('jax_num_cpu_devices', devices)
    # XLA's threads: by default one for each processor, and a device that waits
    # for another one in a sum holds its thread. With none to spare, the other
    # may wait for the work that is queued behind it (seen once: XLA ends the
    # process after 40 s).
    threads = parallel.num_processors() + devices - 1
    os.environ.setdefault('NPROC', str(threads))


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
