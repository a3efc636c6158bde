"""What a command logs while it runs, and how it uses the machine's memory.

Commands import this module before TensorFlow and jax: their C++ libraries read
the environment once, when they are loaded.
"""

import ctypes
import gc
import importlib.util
import os

from absl import logging

# Libraries that log every file and lookup at INFO.
CHATTY = ('orbax', 'jax', 'fsspec', 'gcsfs')
# Banners on stderr: oneDNN's and the CPU's features of TensorFlow, which only
# writes TensorBoard's events here; XLA's asterisks around a slow compilation;
# and the warning of absl's C++ side that precedes the first of them. Errors
# that matter are raised as Python exceptions. A value of the user's own stays.
QUIET = {
  'TF_CPP_MIN_LOG_LEVEL': '3',
  'TF_ENABLE_ONEDNN_OPTS': '0',
  'GRPC_VERBOSITY': 'ERROR',
}
for _name, _value in QUIET.items():
  os.environ.setdefault(_name, _value)
# Parameters of glibc's mallopt, see malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_memory() -> None:
  """Makes glibc keep memory that a program on a CPU frees, for the next step.

  By default it gives large blocks back to the system, and threads other than
  the first have theirs mapped anew each time: a training step then spends a
  sixth of its time on the pages of its temporary arrays. How many heaps there
  are is settled by the first other thread: call it before there is one. Hosts
  of accelerators, other C libraries and what the environment says of malloc are
  left alone.
  """
  told = any(name.startswith('MALLOC_') for name in os.environ)
  if told or 'GLIBC_TUNABLES' in os.environ or not _is_for_cpu():
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return
  mallopt(_TRIM_THRESHOLD, 2**31 - 1)
  mallopt(_MMAP_THRESHOLD, 2**30)
  mallopt(_ARENA_MAX, 1)  # Heaps of other threads hold no block above 64 MiB.


def _is_for_cpu() -> bool:
  """Returns whether jax, which is not imported yet, will use the CPU."""
  if platforms := os.environ.get('JAX_PLATFORMS'):
    return platforms == 'cpu'
  plugins = ('jax_plugins', 'libtpu')
  return not any(importlib.util.find_spec(name) for name in plugins)


keep_memory()


def start() -> None:
  """Shows INFO messages; of the chatty libraries only WARNING and above.

  What was imported until now is no garbage either: looking for some in it again
  and again takes a tenth of the time in which jax traces programs.
  """
  gc.freeze()
  logging.set_verbosity(logging.INFO)
  info = logging.converter.ABSL_TO_STANDARD[logging.INFO]

  def shown(record):
    folders = record.pathname.split(os.sep)
    return record.levelno > info or not any(x in folders for x in CHATTY)

  logging.get_absl_handler().addFilter(shown)
