"""Executes the notebooks of colabs/ in small, for tests."""

import ast
import json
import re

from conftest import ROOT
import jupyter_client
from jupyter_client import kernelspec
import nbclient
import nbformat

FOLDER = ROOT / 'colabs'


def read(name):
  """A notebook as it is committed."""
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def set_fields(notebook, **values):
  """Sets fields of the notebook's forms, in place; each must be there."""
  for name, value in values.items():
    field = re.compile(rf'^{name} = .*?(?=  # @param)', re.M)
    found = [cell for cell in notebook.cells if field.search(cell.source)]
    assert len(found) == 1, f'{len(found)} fields are called {name}'
    text = f'{name} = {value!r}'.replace('\\', r'\\')
    found[0].source = field.sub(text, found[0].source)


def field(notebook, name):
  """What a field of the notebook's forms holds."""
  line = re.compile(rf'^{name} = (.*?)  # @param', re.M)
  (found,) = [x for cell in notebook.cells for x in line.findall(cell.source)]
  return ast.literal_eval(found)


def kernel(python, folder):
  """The manager of a kernel that runs in another environment."""
  (folder / 'kernels/other').mkdir(parents=True, exist_ok=True)
  command = [str(python), '-m', 'ipykernel_launcher', '-f', '{connection_file}']
  spec = {'argv': command, 'display_name': 'other', 'language': 'python'}
  (folder / 'kernels/other/kernel.json').write_text(json.dumps(spec))
  specs = kernelspec.KernelSpecManager(
    kernel_dirs=[str(folder / 'kernels')], ensure_native_kernel=False
  )
  return jupyter_client.AsyncKernelManager(
    kernel_name='other', kernel_spec_manager=specs
  )


def client(notebook, cwd, km=None, seconds=300):
  """A client that executes a notebook in a folder."""
  return nbclient.NotebookClient(
    notebook,
    km,
    timeout=seconds,
    kernel_name='python3' if km is None else 'other',
    resources={'metadata': {'path': str(cwd)}},
  )


def output(cell):
  """All that a cell has shown: text, and HTML."""
  parts = []
  for item in cell.outputs:
    parts.append(item.get('text', ''))
    parts += item.get('data', {}).values()
    parts += item.get('traceback', [])
  return '\n'.join(str(part) for part in parts)


def cell(notebook, title):
  """The cell whose form has a title."""
  (found,) = [
    x for x in notebook.cells if x.source.startswith(f'# @title {title}\n')
  ]
  return found


def code(source):
  """A new cell."""
  return nbformat.v4.new_code_cell(source)


def traceback(cell):
  """What a cell that failed shows in the place of a traceback."""
  (error,) = [x for x in cell.outputs if x.output_type == 'error']
  return '\n'.join(error.traceback)
