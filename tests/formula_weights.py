"""Weights by a formula that both sides of a comparison know.

So a golden file need not hold the weights it was made with. RandomState's
values are promised to stay the same in all versions of NumPy.
"""

import zlib

import numpy as np


def draw(name, shape):
  """Float32 values for the parameter of a PyTorch module, by its name.

  Kernels keep the size of what goes through them about the same; norms and
  biases are far enough from one and zero to be missed if they were forgotten.
  """
  random = np.random.RandomState(zlib.crc32(name.encode()))
  values = random.standard_normal(shape)
  if name.endswith('running_var'):
    return random.uniform(0.25, 0.75, shape).astype(np.float32)
  if len(shape) > 1:  # [out, in, ...]
    return (values * 0.7 * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
  return (0.1 * values + name.endswith('weight')).astype(np.float32)


def fill(module):
  """Gives every parameter and buffer of a PyTorch module its values."""
  import torch

  module.load_state_dict(
    {
      name: torch.from_numpy(draw(name, tuple(value.shape))).to(value.dtype)
      if value.dtype.is_floating_point
      else value
      for name, value in module.state_dict().items()
    }
  )
  return module.eval()
