"""Reads an export of vdm with PyTorch: names, shapes, layouts.

  pip install torch safetensors
  python docs/read_export.py exports/ucf101

The arrays are as JAX keeps them. `to_torch` gives the layouts that PyTorch's
layers take; the network is vdm/models/unet.py and is not built here.
"""

import hashlib
import json
import pathlib
import sys

from safetensors import torch as safetensors
import torch


def read(folder: str) -> tuple[dict, dict[str, dict[str, torch.Tensor]]]:
  """Returns config.json and {'model' or 'autoencoder': {name: tensor}}."""
  folder = pathlib.Path(folder)
  config = json.loads((folder / 'config.json').read_text())
  tensors = {}
  for part in ('model', 'autoencoder'):
    name = f'{part}.safetensors'
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != config['files'][name]['sha256']:
      raise ValueError(f'{folder / name} is not what was written.')
    tensors[part] = safetensors.load(data)
  return config, tensors


def layout(name: str, x: torch.Tensor) -> str:
  """Returns the axes of a kernel: T H W, then I and O, in and out; '' else."""
  if not name.endswith('kernel'):
    return ''
  if x.ndim == 4 and x.shape[0] > x.shape[1]:
    return 'T1IO'  # Over time alone.
  return {2: 'IO', 4: 'HWIO', 5: 'THWIO'}[x.ndim]


def to_torch(name: str, x: torch.Tensor) -> torch.Tensor:
  """Returns an array in PyTorch's layout: IO to OI, HWIO to OIHW and so on."""
  if not layout(name, x):
    return x
  return x.permute(-1, -2, *range(x.ndim - 2)).contiguous()


def main(folder: str) -> None:
  config, tensors = read(folder)
  print(f'step {config["step"]}, {config["dtype"]}, {config["stage"]}')
  for part, arrays in tensors.items():
    print(f'\n{part}: {len(arrays)} arrays')
    for name, x in sorted(arrays.items()):
      here = list(to_torch(name, x).shape)
      print(f'  {name} {list(x.shape)} {layout(name, x)} -> {here}')


if __name__ == '__main__':
  main(sys.argv[1])
