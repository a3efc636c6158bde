"""What a command prints while it works."""

import os
import time

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


def progress(title, total, every=10.0):
  """Returns a function to call with how many are done, which logs now and then.

  Args:
    title: of what is done.
    total: how many there are.
    every: seconds between two lines, at least.
  """
  began = shown = time.monotonic()

  def report(done):
    nonlocal shown
    now = time.monotonic()
    if now - shown >= every or (done == total and now - began >= every):
      left = (now - began) / done * (total - done)
      logging.info('%s: %d of %d, %.0f s left', title, done, total, left)
      shown = now

  return report
