"""Every command of the README names files, flags and keys that exist."""

import re
import shlex

from config_variants_test import get_config
from conftest import ROOT
import pytest

from vdm.config import serialize


def commands():
  """The commands in the README's bash blocks, continued lines joined."""
  text = (ROOT / 'README.md').read_text()
  blocks = re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [shlex.split(line) for line in lines if line.strip()]


def flags_of(source):
  """Names of the absl flags a module defines, --config among them."""
  text = source.read_text()
  names = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", text))
  return names | ({'config'} if 'flag.define()' in text else set())


def program(words):
  """The file a command runs."""
  if words[:2] == ['python', '-m']:
    return ROOT / (words[2].replace('.', '/') + '.py')
  if words[1] == 'launch/local.sh':
    return ROOT / 'vdm/main.py'
  return ROOT / words[1]


@pytest.mark.parametrize('words', commands(), ids=' '.join)
def test_command_can_run(words):
  assert words[0] in ('python', 'bash')
  file = program(words)
  assert file.exists()
  if words[0] == 'bash':
    assert (ROOT / words[1]).exists()
  if file.suffix != '.py':
    return
  known = flags_of(file)
  config = None
  for i, word in enumerate(words):
    if not word.startswith('--'):
      continue
    name, _, value = word[2:].partition('=')
    if name.startswith('config.'):
      assert name[len('config.') :] in serialize.flatten(config), word
      continue
    assert name in known, f'{file.name} has no --{name}'
    if name == 'config':
      path, _, variant = (value or words[i + 1]).partition(':')
      assert (ROOT / path).exists()
      config = get_config((ROOT / path).stem, variant)


def test_there_are_commands():
  assert len(commands()) >= 10
