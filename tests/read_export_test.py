"""The reader of exports for PyTorch, beside what JAX computes."""

import subprocess
import sys

from conftest import ROOT
import jax.numpy as jnp
import numpy as np
import pytest

from vdm import trained
from vdm.common import trees
from vdm.models import layers
from vdm.models import safetensors

DEMO, SCRIPT = ROOT / 'colabs/demo', ROOT / 'docs/read_export.py'


@pytest.fixture
def reader(monkeypatch):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  pytest.importorskip('safetensors', reason='safetensors is not installed')
  monkeypatch.syspath_prepend(SCRIPT.parent)
  import read_export

  return read_export


def test_it_is_short_and_knows_nothing_of_the_package():
  text = SCRIPT.read_text()
  assert len(text.splitlines()) <= 60
  assert 'vdm' not in {
    line.split()[1].split('.')[0]
    for line in text.splitlines()
    if line.startswith(('import ', 'from '))
  }


@pytest.mark.oracle
def test_tensors_are_the_same(reader):
  model = trained.load(DEMO)
  config, tensors = reader.read(DEMO)
  assert config['step'] == model.step
  for part, params in (
    ('model', model.params),
    ('autoencoder', model.frozen['params']),
  ):
    expected = trees.flatten(params)
    assert tensors[part].keys() == expected.keys()
    for name, x in tensors[part].items():
      np.testing.assert_array_equal(x.float().numpy(), expected[name])


@pytest.mark.oracle
def test_kernels_are_those_of_torch_once_converted(reader):
  import torch

  _, tensors = reader.read(DEMO)
  random = np.random.default_rng(0)
  kinds = set()
  for name, kernel in tensors['model'].items():
    kind = reader.layout(name, kernel)
    if kind not in ('HWIO', 'T1IO', 'IO') or kind in kinds:
      continue
    kinds.add(kind)
    kernel = kernel.float()
    weight = reader.to_torch(name, kernel)
    channels = kernel.shape[-2]
    if kind == 'IO':
      x = random.normal(size=(3, channels)).astype(np.float32)
      found = torch.nn.functional.linear(torch.from_numpy(x), weight)
      expected = x @ kernel.numpy()
    else:
      x = random.normal(size=(2, 5, 6, channels)).astype(np.float32)
      z = torch.from_numpy(x).permute(0, 3, 1, 2)
      found = torch.nn.functional.conv2d(z, weight, padding='same')
      found = found.permute(0, 2, 3, 1)
      expected = layers.conv2d(jnp.asarray(x), jnp.asarray(kernel.numpy()))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
  assert kinds == {'HWIO', 'T1IO', 'IO'}


@pytest.mark.oracle
def test_the_script_lists_an_export(reader):
  done = subprocess.run(
    [sys.executable, SCRIPT, DEMO], capture_output=True, text=True, check=True
  )
  assert 'step 3300, bfloat16, video' in done.stdout
  assert 'encoder/stem/kernel [3, 3, 192, 64] HWIO -> [64, 192, 3, 3]' in (
    done.stdout
  )


@pytest.mark.oracle
def test_files_are_those_of_the_library(reader, tmp_path):
  from safetensors import numpy as library

  arrays = {
    'b/kernel': np.arange(6, dtype=np.float32).reshape(2, 3),
    'a': np.asarray(7, np.int64),
    'c': np.zeros((0, 2), np.float16),
  }
  data = safetensors.to_bytes(arrays, {'format': 'x'})
  found = library.load(data)
  assert found.keys() == arrays.keys()
  for name, x in arrays.items():
    np.testing.assert_array_equal(found[name], x)
    assert found[name].dtype == x.dtype
  for name, x in safetensors.parse(library.save(arrays)).items():
    np.testing.assert_array_equal(arrays[name], x)
