"""What a command prints while it works."""

import os

from absl import logging

# Libraries that tell of every file and lookup at INFO.
CHATTY = ('orbax', 'jax')


def start():
  """Shows INFO, but of the chatty libraries only what is worse."""
  logging.set_verbosity(logging.INFO)
  info = logging.converter.ABSL_TO_STANDARD[logging.INFO]

  def worth_reading(record):
    folders = record.pathname.split(os.sep)
    return record.levelno > info or not any(x in folders for x in CHATTY)

  logging.get_absl_handler().addFilter(worth_reading)
