"""Programs outside of the package name what is in it."""

import ast
import importlib

from conftest import ROOT
import pytest

PROGRAMS = sorted(
  path.relative_to(ROOT).as_posix()
  for folder in ('benchmarks', 'colabs', 'configs', 'tests/faults')
  for path in (ROOT / folder).glob('*.py')
)


def missing(tree):
  """Names of the package that a program uses and that are not there."""
  modules = {}
  for node in ast.walk(tree):
    if not isinstance(node, ast.ImportFrom) or not node.module:
      continue
    if node.module.split('.')[0] != 'vdm':
      continue
    package = importlib.import_module(node.module)
    for alias in node.names:
      try:
        found = importlib.import_module(f'{node.module}.{alias.name}')
      except ModuleNotFoundError:
        if not hasattr(package, alias.name):
          yield f'{node.module}.{alias.name}'
        continue
      modules[alias.asname or alias.name] = found
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
      module = modules.get(node.value.id)
      if module is not None and not hasattr(module, node.attr):
        yield f'{node.value.id}.{node.attr}'


@pytest.mark.parametrize('path', PROGRAMS)
def test_programs_use_names_that_are_there(path):
  assert not list(missing(ast.parse((ROOT / path).read_text())))


def test_a_name_that_is_not_there_is_found():
  tree = ast.parse(
    'def f():\n  from vdm import generate\n  from vdm.common import nothing\n'
    '  generate.Worse, generate.preview_conditions'
  )
  assert list(missing(tree)) == [
    'vdm.common.nothing',
    'generate.preview_conditions',
  ]
