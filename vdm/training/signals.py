"""What SIGTERM and SIGINT mean to a run."""

import signal

from absl import logging


class StopSignal:
  """Remembers SIGTERM and SIGINT; a second one ends the process at once."""

  def __init__(self):
    self._received = False
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._handle)

  def _handle(self, number, frame):
    del frame
    logging.warning('Signal %d: saving, then stopping; again: at once.', number)
    self._received = True
    signal.signal(number, signal.SIG_DFL)

  def received(self):
    """Whether to save and stop after this step."""
    return self._received
