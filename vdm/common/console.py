"""What a command logs while it runs.

Commands import this module before TensorFlow and jax: their C++ libraries read
the environment once, when they are loaded.
"""

import gc
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
