"""README.md and docs/: their commands, links and paths name what exists."""

import pathlib
import re
import shlex

from config_variants_test import get_config
from conftest import ROOT
import pytest

from vdm.config import serialize

README = ROOT / 'README.md'
DOCS = sorted((ROOT / 'docs').glob('*.md'))
PAGES = (README, *DOCS)
# Folders whose paths, written as code, are those of the repository.
FOLDERS = ('benchmarks', 'colabs', 'configs', 'docs', 'launch', 'tests', 'vdm')


def name_of(path):
  return path.relative_to(ROOT).as_posix()


def commands(page):
  """The commands in a page's bash blocks, continued lines joined."""
  blocks = re.findall(r'```bash\n(.*?)```', page.read_text(), re.DOTALL)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [shlex.split(line) for line in lines if line.strip()]


def prose(page):
  """The text of a page without its blocks of code."""
  return re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.M)


def links(page):
  """(file, anchor) of each link to a place in the repository."""
  for target in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
    if not target.startswith(('http://', 'https://')):
      path, _, anchor = target.partition('#')
      yield (page.parent / path if path else page).resolve(), anchor


def anchors(page):
  """What GitHub calls a page's headings."""
  headings = re.findall(r'^#+ +(.*)$', prose(page), re.M)
  found = [
    re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')
    for heading in headings
  ]
  assert len(set(found)) == len(found), f'{page.name} has a heading twice'
  return found


def flags_of(source):
  """Names of the absl flags a module defines, --config among them."""
  text = source.read_text()
  names = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", text))
  names |= {f'no{x}' for x in re.findall(r"DEFINE_bool\(\s*'(\w+)'", text)}
  if 'sampler_flags.define(' in text:
    names |= flags_of(ROOT / 'vdm/config/sampler_flags.py')
  return names | ({'config'} if 'flag.define()' in text else set())


def program(words):
  """The file a command runs."""
  if words[:2] == ['python', '-m']:
    return ROOT / (words[2].replace('.', '/') + '.py')
  if words[1] == 'launch/local.sh':
    return ROOT / 'vdm/main.py'
  return ROOT / words[1]


@pytest.mark.parametrize(
  'words',
  [
    pytest.param(words, id=f'{name_of(page)}: {" ".join(words)}')
    for page in PAGES
    for words in commands(page)
  ],
)
def test_command_can_run(words):
  assert words[0] in ('python', 'bash')
  if words[1] == 'launch/tpu.sh' and '--' in words:
    assert (ROOT / words[1]).exists()  # Its own: tests/tpu_commands_test.py.
    words = ['bash', 'launch/local.sh', *words[words.index('--') + 1 :]]
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
  assert len(commands(README)) >= 10
  assert all(commands(page) for page in DOCS)
  assert sum(len(commands(page)) for page in PAGES) >= 40


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_links_lead_somewhere(page):
  for file, anchor in links(page):
    assert file.exists(), f'{page.name}: no {file}'
    if anchor:
      assert anchor in anchors(file), f'{page.name}: {file.name} #{anchor}'


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_paths_in_code_exist(page):
  for path in re.findall(r'`([\w./-]+)`', prose(page)):
    if pathlib.PurePath(path).parts[0] in FOLDERS and '/' in path:
      assert (ROOT / path).exists(), f'{page.name}: no {path}'


def test_readme_leads_to_every_page():
  assert set(DOCS) <= {file for file, _ in links(README)}


def test_pages_are_short():
  assert len(README.read_text().splitlines()) <= 250
  for page in DOCS:
    assert len(page.read_text().splitlines()) <= 300, page.name
