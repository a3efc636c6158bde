"""What a command shows of its own and of its libraries' messages."""

import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import logging as standard
from absl import logging
from vdm.common import console
logging.use_absl_handler()
console.start()
logging.info('ours')
logger = logging.get_absl_logger()
for level, text in ((standard.INFO, 'chatter'), (standard.WARNING, 'trouble')):
  record = logger.makeRecord(
    'absl', level, '/x/orbax/save.py', 1, text, (), None)
  logger.handle(record)
"""


def test_libraries_are_heard_only_when_something_is_wrong():
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'ours' in done.stderr
  assert 'trouble' in done.stderr
  assert 'chatter' not in done.stderr
