"""What a command shows of its own and of its libraries' messages."""

import ast
import os
import subprocess
import sys

from conftest import ROOT
import pytest

from vdm import __main__
from vdm.common import console

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


def test_banners_are_off_unless_somebody_wants_them():
  script = """
import os
from vdm.common import console
print([os.environ.get(name) for name in console.QUIET])
"""
  environ = {k: v for k, v in os.environ.items() if k not in console.QUIET}
  for given, shown in (({}, '3'), ({'TF_CPP_MIN_LOG_LEVEL': '1'}, '1')):
    done = subprocess.run(
      [sys.executable, '-c', script],
      cwd=ROOT,
      env=environ | given,
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout.startswith(f"['{shown}', '0'")


@pytest.mark.parametrize('command', __main__.COMMANDS)
def test_commands_import_console_before_anything_native(command):
  tree = ast.parse((ROOT / f'vdm/{command}.py').read_text())
  modules = [
    f'{node.module}.{alias.name}'
    for node in tree.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  ]
  own = [name for name in modules if name.startswith('vdm')]
  assert own[0] == 'vdm.common.console'
