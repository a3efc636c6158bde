"""What the processes of a run tell each other, and how long they wait.

Messages go through the key-value store of jax's coordination service, which
runs in process 0, and not through the devices: they arrive while a program
compiles, a device computes or a collective hangs. A collective with a process
that is dead or unreachable can hang forever, so `gather`, the barrier of this
package, has a time limit and names the missing processes. `heartbeat.py`
detects hanging collectives and dead processes.

A run of one process makes the same calls, which then return at once.
"""

from collections.abc import Iterable
import itertools
import os
from typing import Any

from absl import logging
import jax

STOPPED = 75  # Exit code: stopped before the end, run the same command again.
ALIVE = 'vdm/alive/'  # Key prefix in the store: the heartbeat of each process.

_rounds = itertools.count()
_limit = 1800.0  # Seconds that `gather` waits; see `set_limit`.


class CoordinationError(RuntimeError):
  """Another process did not reach a barrier in time."""


def store() -> Any:
  """Returns the key-value store of jax's coordination service."""
  return _state().client


def joined() -> tuple[int, int]:
  """Returns (index, count) of the processes; unlike jax's, without a device."""
  state = _state()
  return state.process_id or 0, state.num_processes or 1


def _state() -> Any:
  # No public name yet; Orbax reaches for it in the same way.
  from jax._src import distributed

  return distributed.global_state


def write(key: str, text: str) -> None:
  """Writes a value to the store, over the one before."""
  store().key_value_set(key, text, allow_overwrite=True)


def read(folder: str) -> dict[int, str]:
  """Returns {process: value} of the keys `<folder><process>` in the store."""
  values = store().key_value_dir_get(folder)
  return {int(key.rpartition('/')[2]): text for key, text in values}


def gather(what: str, text: str = '') -> list[str]:
  """Returns the texts of all processes, in order of process, on every process.

  Every process calls it from its main thread, as often and in the same order
  as the others.

  Args:
    what: what the processes exchange, for error messages.
    text: what this process contributes.

  Raises:
    CoordinationError: a process did not call it in time; says which.
  """
  if jax.process_count() == 1:
    return [text]
  number = next(_rounds)
  folder = f'vdm/round/{number}/'
  store().key_value_set(f'{folder}{jax.process_index()}', text)
  try:
    store().wait_at_barrier(f'vdm/{number}', int(1000 * _limit))
  except jax.errors.JaxRuntimeError as error:
    missing = sorted(set(range(jax.process_count())) - read(folder).keys())
    raise CoordinationError(
      f'{process_names(missing)} did not reach {what!r} within {_limit:.0f} s: '
      'see its log and stack, then run the same command again to resume.'
      f'{last_heartbeats()}'
    ) from error
  texts = read(folder)
  if jax.process_index() == 0 and number > 1:
    # All processes have passed the round in between, so all have read this one.
    store().key_value_delete(f'vdm/round/{number - 2}/')
  return [texts[process] for process in range(jax.process_count())]


def set_limit(seconds: float) -> None:
  """Sets how long `gather` waits from now on."""
  global _limit
  _limit = seconds


def all_agree(what: str, passed: bool) -> bool:
  """Returns whether `passed` is true in every process."""
  return '' not in gather(what, 'yes' if passed else '')


def first_says(what: str, flag: bool) -> bool:
  """Returns process 0's flag on every process, so that one process decides."""
  return gather(what, 'yes' if flag else '')[0] == 'yes'


def is_first() -> bool:
  """Returns whether this is process 0, which writes the files of the run."""
  return jax.process_index() == 0


def leave(code: int) -> None:
  """Exits from any thread, without waiting for threads or other processes."""
  logging.flush()
  os._exit(code)


def process_names(processes: Iterable[int]) -> str:
  """Returns 'Process 1 of 2', for messages."""
  return f'Process {", ".join(map(str, processes))} of {jax.process_count()}'


def last_heartbeats() -> str:
  """Returns where every process last said that it is, one line each."""
  return ''.join(
    f'\n  process {process}: {text}'
    for process, text in sorted(read(ALIVE).items())
  )
