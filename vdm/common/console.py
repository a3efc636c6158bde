"""What a command logs while it runs."""

import os

from absl import logging

# Libraries that log every file and lookup at INFO.
CHATTY = ('orbax', 'jax')


def start() -> None:
  """Shows INFO messages; of the chatty libraries only WARNING and above."""
  logging.set_verbosity(logging.INFO)
  info = logging.converter.ABSL_TO_STANDARD[logging.INFO]

  def shown(record):
    folders = record.pathname.split(os.sep)
    return record.levelno > info or not any(x in folders for x in CHATTY)

  logging.get_absl_handler().addFilter(shown)
