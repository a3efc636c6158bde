"""The rooms of the package: who imports whom, and who imports what.

A room imports rooms on lower floors only, modules never import each other in a
circle, and some libraries belong to one room each.
"""

import ast
import functools
import sys

from conftest import ROOT
import pytest

# From the top; rooms of one floor do not know each other.
FLOORS = (
  (
    '__main__',
    'main',
    'prepare',
    'plan',
    'sample',
    'evaluate',
    'report',
    'compare',
    'sweep',
    'diagnose',
    'averages',
    'export',
    'replay',
  ),
  ('sweeping',),
  ('train', 'publishing', 'reporting', 'fulfil'),
  ('evaluation', 'planning', 'request'),
  ('training', 'chain'),
  ('generate', 'trained'),
  ('sampling',),
  ('prompts',),
  ('preparation',),
  ('data',),
  ('checkpoints',),
  ('multihost',),
  ('models', 'diffusion', 'metrics', 'media'),
  ('config',),
  ('common',),
)
# Libraries, and the only places that import them.
OWNERS = {
  'flax': ('vdm.models',),
  'clu': ('vdm.training.destinations.tensorboard',),
  'tensorflow': ('vdm.training.destinations.tensorboard',),
  'google.cloud': ('vdm.common.buckets',),
  'fsspec': ('vdm.common.buckets',),
  'huggingface_hub': ('vdm.common.hub', 'vdm.publishing.upload'),
  'httpx': ('vdm.common.hub',),
  'wandb': ('vdm.training.destinations.wandb_run',),
  'trackio': ('vdm.training.destinations.trackio_run',),
  'tensorflow_datasets': ('vdm.data.builders',),
  'grain': ('vdm.data',),
  'orbax': ('vdm.checkpoints',),
  'optax': ('vdm.training',),
  'torch': ('vdm.preparation.text_encoder',),
  'transformers': ('vdm.preparation.text_encoder',),
  'apache_beam': ('vdm.preparation.beam_runner',),
  'jax.experimental.multihost_utils': ('vdm.multihost',),
  'jax._src.distributed': ('vdm.multihost',),
}
# What Grain's workers and preparation's processes import: no jax in there.
WITHOUT_JAX = (
  'vdm.data',
  'vdm.preparation',
  'vdm.media',
  'vdm.config',
  'vdm.common',
)

# What sampling imports, the commands and notebooks of it included: that much is
# in Colab, or installed by the first cell of colabs/sample.py. OpenCV, which is
# in Colab, is imported for given frames alone.
COLAB = {
  'absl',
  'av',
  'cv2',
  'etils',
  'flax',
  'huggingface_hub',
  'jax',
  'ml_collections',
  'numpy',
  'orbax',
  'PIL',
  'tqdm',
  # Of pretrained text encoders, when one is asked; Colab has both.
  'torch',
  'transformers',
  # Of models on the hub and in buckets.
  'httpx',
  'aiohttp',
  'fsspec',
  'google',
  'requests',
}


@functools.cache
def modules():
  """{name of a module: its syntax tree}."""
  found = {}
  for path in sorted((ROOT / 'vdm').rglob('*.py')):
    parts = path.relative_to(ROOT).with_suffix('').parts
    parts = parts[:-1] if parts[-1] == '__init__' else parts
    found['.'.join(parts)] = ast.parse(path.read_text())
  return found


def imports(tree, names):
  """Names of what a module imports, inside of functions too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        # A module, or what it defines; of libraries nobody here can tell.
        own = node.module.split('.')[0] == 'vdm'
        yield full if full in names or not own else node.module


def room(name):
  return name.split('.')[1]


def floor(name):
  return next(i for i, rooms in enumerate(FLOORS) if room(name) in rooms)


@functools.cache
def edges():
  """(importing module, imported module of the package)."""
  names = set(modules())
  return [
    (name, other)
    for name, tree in modules().items()
    for other in imports(tree, names)
    if other in names and other != 'vdm'
  ]


def test_every_room_has_a_floor_and_every_floor_a_room():
  rooms = {room(name) for name in modules() if name != 'vdm'}
  assert rooms == {name for names in FLOORS for name in names}


def test_rooms_know_only_lower_floors():
  upwards = [
    f'{name} imports {other}'
    for name, other in edges()
    if room(name) != room(other) and floor(name) >= floor(other)
  ]
  assert upwards == []


def test_no_module_imports_itself_in_a_circle():
  graph = {}
  for name, other in edges():
    graph.setdefault(name, set()).add(other)
  done, path = set(), []

  def visit(name):
    assert name not in path, ' -> '.join([*path[path.index(name) :], name])
    if name in done:
      return
    path.append(name)
    for other in sorted(graph.get(name, ())):
      visit(other)
    done.add(path.pop())

  for name in sorted(graph):
    visit(name)


@pytest.mark.parametrize('library', OWNERS)
def test_library_belongs_to_one_place(library):
  strangers = [
    name
    for name, tree in modules().items()
    if any(
      f'{other}.'.startswith(f'{library}.') for other in imports(tree, set())
    )
    and not any(f'{name}.'.startswith(f'{own}.') for own in OWNERS[library])
  ]
  assert strangers == []


def test_rooms_that_workers_import_have_no_jax():
  users = [
    f'{name} imports {other}'
    for name, tree in modules().items()
    if any(f'{name}.'.startswith(f'{own}.') for own in WITHOUT_JAX)
    for other in imports(tree, set())
    if other.split('.')[0] in ('jax', 'flax', 'tensorflow')
  ]
  assert users == []


def test_sampling_needs_no_more_than_colab_offers():
  """Also what functions import: a notebook calls them all."""
  names, graph = set(modules()), {}
  for name, other in edges():
    graph.setdefault(name, set()).add(other)
  todo, needed = ['vdm.sample', 'vdm.media.notebook'], set()
  while todo:
    name = todo.pop()
    if name not in needed:
      needed.add(name)
      parents = {name.rpartition('.')[0]} & names
      todo += graph.get(name, set()) | parents
  libraries = {
    other.split('.')[0]
    for name in needed
    for other in imports(modules()[name], names)
  }
  libraries -= {'vdm', *sys.stdlib_module_names}
  assert libraries - COLAB == set()
  assert {'flax', 'orbax', 'av'} <= libraries


def test_sub_rooms_say_what_belongs_there():
  packages = {
    path.parent.relative_to(ROOT).as_posix().replace('/', '.')
    for path in (ROOT / 'vdm').rglob('__init__.py')
  }
  for name in packages:
    assert ast.get_docstring(modules()[name]), name
