"""Writes small files of weights with PyTorch and the safetensors library.

    python tests/golden/make_weight_files.py

writes them to `weight_files/` beside this file. Every tensor counts up from
its own start, so that tests know the values; see TENSORS. Needs torch and
safetensors, in an environment of their own.
"""

import pathlib

import safetensors.torch
import torch

FOLDER = pathlib.Path(__file__).with_name('weight_files')
# name: (shape, dtype, first value); values count up by a quarter.
TENSORS = {
  'single.weight': ((2, 3), torch.float32, 0.5),
  'half.weight': ((3, 2), torch.float16, -4.0),
  'brain.weight': ((4,), torch.bfloat16, 10.0),
  'double.weight': ((2, 1, 2), torch.float64, 1.0),
  'steps': ((), torch.int64, 7),
}


def make(shape, dtype, first):
  size = torch.Size(shape).numel()
  values = first + torch.arange(size, dtype=torch.float64) / 4
  return values.reshape(shape).to(dtype)


class Inner(torch.nn.Module):
  def __init__(self, first):
    super().__init__()
    self.weight = torch.nn.Parameter(make((2, 3), torch.float32, first))
    self.register_buffer('steps', make((), torch.int64, 7))

  def forward(self, x):
    return x @ self.weight.T


class Outer(torch.nn.Module):
  """Modules in modules, a parameter of its own, attributes that are none."""

  def __init__(self):
    super().__init__()
    self.layers = torch.nn.Sequential(Inner(0.5), Inner(2.5))
    self.scale = torch.nn.Parameter(make((3,), torch.float32, -1.0))
    self.sizes = [1, 2, 3]
    self.name = 'outer'

  def forward(self, x):
    return self.layers[1](self.layers[0](x * self.scale))


def main():
  FOLDER.mkdir(exist_ok=True)
  tensors = {name: make(*values) for name, values in TENSORS.items()}
  safetensors.torch.save_file(
    tensors, FOLDER / 'tensors.safetensors', metadata={'format': 'pt'}
  )
  # Views: of another's storage, transposed, and from the middle of one.
  base = make((3, 4), torch.float32, 0.0)
  views = {
    **tensors,
    'base': base,
    'transposed': base.T,
    'part': base[1:, 1:3],
    'parameter': torch.nn.Parameter(base[0]),
  }
  torch.save(views, FOLDER / 'zip.pth')
  torch.save(
    {'state_dict': views, 'epoch': 3, 'rates': [0.1, None]},
    FOLDER / 'legacy.pth',
    _use_new_zipfile_serialization=False,
  )
  torch.jit.script(Outer()).save(str(FOLDER / 'script.pt'))


if __name__ == '__main__':
  main()
