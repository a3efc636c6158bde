"""The processes of a run: what they tell each other, and how long they wait.

Messages go through the key-value store of jax's coordination service, which
the first process holds, and not through the devices: they arrive while a
program compiles, a device computes or a collective hangs. A collective with a
process that is dead or lost can hang for ever, so

`gather`, the barrier of this package, has a time limit and names who did not
come; `watch.py` looks after collectives on devices and the processes' health.

A run of one process uses the same calls, which then return at once.
"""

import itertools
import os
from typing import Any

from absl import logging
import jax

STOPPED = 75  # Exit code: stopped before the end, run the same command again.
ALIVE = 'vdm/alive/'  # Of the store: where each process says how it is.

_rounds = itertools.count()
_limit = [1800.0]  # Seconds that `gather` waits; see `set_limit`.


class PeerError(RuntimeError):
  """Another process did not come to where all have to be."""


def store() -> Any:
  """The key-value store of jax's coordination service."""
  # No public name yet; Orbax reaches for it in the same way.
  from jax._src import distributed

  return distributed.global_state.client


def gather(what: str, text: str = '') -> list[str]:
  """What every process says, in their order; the same on all.

  Every process calls it, from its main thread, as often and in the same order
  as the others.

  Args:
    what: for a person, what this is about.
    text: what this process says.

  Raises:
    PeerError: some process did not come in time; says which.
  """
  if jax.process_count() == 1:
    return [text]
  keys, number = store(), next(_rounds)
  folder = f'vdm/round/{number}/'
  keys.key_value_set(f'{folder}{jax.process_index()}', text)
  try:
    keys.wait_at_barrier(f'vdm/{number}', int(1000 * _limit[0]))
  except jax.errors.JaxRuntimeError as error:
    came = numbered(keys.key_value_dir_get(folder))
    missing = sorted(set(range(jax.process_count())) - came.keys())
    raise PeerError(
      f'{name(missing)} did not come to {what!r} within {_limit[0]:.0f} s: '
      'look at its log and stack, then run the same command again.'
      f'{whereabouts()}'
    ) from error
  said = numbered(keys.key_value_dir_get(folder))
  if jax.process_index() == 0 and number > 1:
    # All have passed the round in between, so all have read this one.
    keys.key_value_delete(f'vdm/round/{number - 2}/')
  return [said[process] for process in range(jax.process_count())]


def set_limit(seconds: float):
  """Lets `gather` wait so long from now on."""
  _limit[0] = seconds


def whereabouts() -> str:
  """Where each process said last that its main thread is, for a person."""
  beats = numbered(store().key_value_dir_get(ALIVE))
  return ''.join(
    f'\n  process {process}: {beats[process]}' for process in sorted(beats)
  )


def all_agree(what: str, passed: bool) -> bool:
  """Whether `passed` is true in every process."""
  return '' not in gather(what, 'yes' if passed else '')


def first_says(what: str, flag: bool) -> bool:
  """The first process's flag, on all: for what only one of them may decide."""
  return gather(what, 'yes' if flag else '')[0] == 'yes'


def is_first() -> bool:
  """Whether this process is the one that writes the run's files."""
  return jax.process_index() == 0


def leave(code: int):
  """Ends the process from any thread, without waiting for anyone."""
  logging.flush()
  os._exit(code)


def numbered(pairs) -> dict[int, str]:
  """{process: text} of the store's [(path, text)]."""
  return {int(key.rpartition('/')[2]): text for key, text in pairs}


def name(processes) -> str:
  """Returns 'Process 1 of 2', for a person."""
  numbers = ', '.join(map(str, processes))
  return f'Process {numbers} of {jax.process_count()}'
