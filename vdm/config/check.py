"""Rejects impossible configurations, with one sentence that says why.

`validate` needs no device and no data; `check_devices` adds what depends on
the machine. `vdm.training.preflight` adds what data set and mathematics decide.
"""

import math

from ml_collections import ConfigDict

from vdm.common import errors
from vdm.config import rules
from vdm.config import schema
from vdm.config import serialize
from vdm.config import suggest


def validate(config: ConfigDict) -> None:
  """Checks everything that needs neither a device nor the data.

  Raises:
    UsageError: one sentence about the first problem.
  """
  keys = schema.keys(config.get('stages', ()))
  values = serialize.flatten(config)
  for name in values:
    if name not in keys:
      raise errors.UsageError(
        f'config.{name} is not a key{suggest.hint(name, keys, "config.")}'
      )
  for name, key in keys.items():
    if name not in values:
      raise errors.UsageError(
        f'config.{name} is missing: start from default() and stage() of '
        'vdm/config/schema.py.'
      )
    if problem := key.problem(values[name]):
      raise errors.UsageError(f'config.{name}={problem}')
  for problem in rules.problems(config):
    raise errors.UsageError(problem)


def cpu_devices(config: ConfigDict) -> int:
  """Returns how many devices a CPU acts as: as many as divide every batch."""
  return max(
    n
    for n in range(1, config.train.cpu_devices + 1)
    if n == 1
    or not any(device_problem(config, name, n) for name in config.train.order)
  )


def check_devices(
  config: ConfigDict, num_devices: int, num_processes: int = 1
) -> None:
  """Checks that every stage's batch divides over the devices and processes.

  Raises:
    UsageError: one sentence about the first problem.
  """
  for name in config.train.order:
    if problem := device_problem(config, name, num_devices, num_processes):
      raise errors.UsageError(problem)


def device_problem(
  config: ConfigDict, name: str, num_devices: int, num_processes: int = 1
) -> str | None:
  """Returns why a stage cannot run on so many devices; None if it can."""
  if num_devices % config.train.fsdp:
    return (
      f'config.train.fsdp={config.train.fsdp} does not divide the '
      f'{num_devices} devices: use one of their divisors.'
    )
  stage = config.stages[name]
  parts = math.lcm(num_devices, num_processes) * stage.accumulate
  if stage.batch % parts == 0:
    return None
  above = -(-stage.batch // parts) * parts
  return (
    f'config.stages.{name}.batch={stage.batch} does not divide over '
    f'{num_devices} devices of {num_processes} processes in '
    f'{stage.accumulate} parts (accumulate): take a multiple of {parts}, '
    f'such as {above}.'
  )
