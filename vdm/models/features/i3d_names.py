"""The names of I3D's 230 parameters in published files.

There are three styles: TensorFlow's variables (TF-Hub, DeepMind's repository),
the PyTorch module of piergiaj (also i3d_pretrained_400.pt of VideoGPT and
TATS), and that of hassony2 (also StyleGAN-V's TorchScript).
"""

from collections.abc import Iterable
import re

import numpy as np

from vdm.models import import_weights

ROOT = 'RGB/inception_i3d/'
STEMS = {
  'conv_1a': 'Conv3d_1a_7x7',
  'conv_2b': 'Conv3d_2b_1x1',
  'conv_2c': 'Conv3d_2c_3x3',
}
# Names in TensorFlow and in hassony2's module.
BRANCHES = {
  'b0': ('Branch_0/Conv3d_0a_1x1', 'branch_0'),
  'b1a': ('Branch_1/Conv3d_0a_1x1', 'branch_1.0'),
  'b1b': ('Branch_1/Conv3d_0b_3x3', 'branch_1.1'),
  'b2a': ('Branch_2/Conv3d_0a_1x1', 'branch_2.0'),
  'b2b': ('Branch_2/Conv3d_0b_3x3', 'branch_2.1'),
  'b3b': ('Branch_3/Conv3d_0b_1x1', 'branch_3.1'),
}
# Unused: slots of the optimizer, counters, and scales of norms.
IGNORED = re.compile(
  r'/Momentum$|^global_step$|\.num_batches_tracked$|\.(bn|batch3d)\.weight$'
)


def tensorflow(path: str) -> str:
  """Returns TensorFlow's name: 'conv_1a/kernel' -> 'RGB/...'."""
  *unit, part = path.split('/')
  part = {
    'kernel': 'conv_3d/w',
    'bias': 'conv_3d/b',
    'beta': 'batch_norm/beta',
    'mean': 'batch_norm/moving_mean',
    'variance': 'batch_norm/moving_variance',
  }[part]
  if unit == ['logits']:
    return f'{ROOT}Logits/Conv3d_0c_1x1/{part}'
  if len(unit) == 1:
    return f'{ROOT}{STEMS[unit[0]]}/{part}'
  branch = BRANCHES[unit[1]][0]
  if unit == ['mixed_5b', 'b2b']:
    branch = 'Branch_2/Conv3d_0a_3x3'  # A misspelling in every file.
  return f'{ROOT}{unit[0].capitalize()}/{branch}/{part}'


def piergiaj(path: str) -> str:
  """Returns piergiaj's name of a parameter."""
  *unit, part = path.split('/')
  name = STEMS.get(unit[0], unit[0].capitalize() if unit[1:] else unit[0])
  return '.'.join([name, *unit[1:], _torch_part(part, 'bn')])


def hassony(path: str) -> str:
  """Returns hassony2's name of a parameter."""
  *unit, part = path.split('/')
  name = STEMS | {'logits': 'conv3d_0c_1x1'}
  name = name.get(unit[0], unit[0]).lower()
  branch = [BRANCHES[b][1] for b in unit[1:]]
  return '.'.join([name, *branch, _torch_part(part, 'batch3d')])


def _torch_part(part, norm):
  return {
    'kernel': 'conv3d.weight',
    'bias': 'conv3d.bias',
    'beta': f'{norm}.bias',
    'mean': f'{norm}.running_mean',
    'variance': f'{norm}.running_var',
  }[part]


def convert(
  tensors: dict[str, np.ndarray], paths: Iterable[str]
) -> dict[str, np.ndarray]:
  """Converts public names and layouts to those of `i3d.I3D`.

  Args:
    tensors: {name: array} of a file.
    paths: the '/'-joined paths of the network's parameters.

  Returns:
    {path: array}.

  Raises:
    WeightsError: a tensor does not belong to the network.
  """
  for style in (tensorflow, piergiaj, hassony):
    table = {style(path): path for path in paths}
    if table.keys() & tensors.keys():
      break
  flat = {}
  for name, array in tensors.items():
    if name in table:
      flat[table[name]] = _reorder(array, table[name])
    elif not IGNORED.search(name):
      raise import_weights.WeightsError(f'{name[:80]} is not a tensor of I3D.')
    elif name.endswith('.weight') and not np.all(array == 1.0):
      raise import_weights.WeightsError(
        f'{name[:80]} is not one: the public I3D has norms without a scale.'
      )
  return flat


def _reorder(array, path):
  """Returns kernels as [t h w in out], all else as vectors."""
  if not path.endswith('kernel'):
    return array.reshape(-1)
  if array.ndim == 5 and not array.shape[0] == array.shape[1] == array.shape[2]:
    return array.transpose(2, 3, 4, 1, 0)  # PyTorch's [out in t h w].
  return array
