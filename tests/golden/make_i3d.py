"""Runs I3D in PyTorch with weights by a formula.

    PYTHONPATH=tests python tests/golden/make_i3d.py

writes `i3d.npz` beside this file: logits [400] averaged over what is left of
time and space, of `clip(...)` as CASES names them; of 'through' cases after
PyTorch's resize. And frames resized by PyTorch. Weights are those of
formula_weights.py under the names of piergiaj's module. Needs torch, in an
environment of its own.
"""

import math
import pathlib

import formula_weights
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

PATH = pathlib.Path(__file__).resolve().with_name('i3d.npz')
# name: (frames, height, width).
CASES = {
  't9': (9, 224, 224),
  't16': (16, 224, 224),
  't17': (17, 224, 224),
  't32': (32, 224, 224),
  'wide': (9, 230, 226),
}
THROUGH = {'squash': (9, 64, 48), 'center': (9, 48, 64)}
# name: (height, width, size, crop).
RESIZES = {
  'up': (20, 27, 48, 'squash'),
  'down': (48, 40, 24, 'squash'),
  'wide': (20, 27, 32, 'center'),
  'tall': (45, 31, 17, 'center'),
}
MIXED = {
  'Mixed_3b': (64, 96, 128, 16, 32, 32),
  'Mixed_3c': (128, 128, 192, 32, 96, 64),
  'Mixed_4b': (192, 96, 208, 16, 48, 64),
  'Mixed_4c': (160, 112, 224, 24, 64, 64),
  'Mixed_4d': (128, 128, 256, 24, 64, 64),
  'Mixed_4e': (112, 144, 288, 32, 64, 64),
  'Mixed_4f': (256, 160, 320, 32, 128, 128),
  'Mixed_5b': (256, 160, 320, 32, 128, 128),
  'Mixed_5c': (384, 192, 384, 48, 128, 128),
}


def clip(t, h, w):
  """Smooth colours that move, and noise; uint8 [t, h, w, 3]."""
  random = np.random.RandomState(t + h + w)
  k, y, x = np.mgrid[:t, :h, :w] / 20
  smooth = np.stack([np.sin(x + y + 9 * k), np.cos(x - 5 * k), np.sin(y)], -1)
  noise = random.randint(-30, 31, smooth.shape)
  return np.clip(127.5 + 90 * smooth + noise, 0, 255).astype(np.uint8)


def same(x, kernel, stride):
  """Pads [n, c, t, h, w] with zeros as TensorFlow's 'SAME' does."""
  pads = []
  for n, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1]):
    total = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
    pads += [total // 2, total - total // 2]
  return F.pad(x, pads)


class Unit(nn.Module):
  def __init__(self, cin, cout, kernel=1, stride=1, final=False):
    super().__init__()
    self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
    self.conv3d = nn.Conv3d(cin, cout, kernel, stride, bias=final)
    self.bn = None if final else nn.BatchNorm3d(cout, eps=1e-3)

  def forward(self, x):
    x = self.conv3d(same(x, self.kernel, self.stride))
    return x if self.bn is None else torch.relu(self.bn(x))


def pool(x, kernel, stride):
  return F.max_pool3d(same(x, kernel, stride), kernel, stride)


class Mixed(nn.Module):
  def __init__(self, cin, widths):
    super().__init__()
    b0, b1a, b1b, b2a, b2b, b3b = widths
    self.b0 = Unit(cin, b0)
    self.b1a, self.b1b = Unit(cin, b1a), Unit(b1a, b1b, 3)
    self.b2a, self.b2b = Unit(cin, b2a), Unit(b2a, b2b, 3)
    self.b3b = Unit(cin, b3b)

  def forward(self, x):
    b3 = self.b3b(pool(x, (3, 3, 3), (1, 1, 1)))
    branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), b3)
    return torch.cat(branches, 1)


class I3D(nn.Module):
  """The network of Carreira and Zisserman, named as in pytorch-i3d."""

  def __init__(self):
    super().__init__()
    self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
    self.Conv3d_2b_1x1 = Unit(64, 64)
    self.Conv3d_2c_3x3 = Unit(64, 192, 3)
    cin = 192
    for name, widths in MIXED.items():
      self.add_module(name, Mixed(cin, widths))
      cin = widths[0] + widths[2] + widths[4] + widths[5]
    self.logits = Unit(cin, 400, final=True)

  def forward(self, x):
    x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
    x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for name in MIXED:
      if name == 'Mixed_4b':
        x = pool(x, (3, 3, 3), (2, 2, 2))
      if name == 'Mixed_5b':
        x = pool(x, (2, 2, 2), (2, 2, 2))
      x = getattr(self, name)(x)
    return self.logits(F.avg_pool3d(x, (2, 7, 7), (1, 1, 1)))


def build():
  network = formula_weights.fill(I3D())
  for module in network.modules():
    if isinstance(module, nn.BatchNorm3d):
      module.weight.data.fill_(1.0)  # As in all public weights.
  return network


def to_torch(frames):
  """[t, h, w, c] -> float [t, c, h, w]."""
  return torch.from_numpy(frames).permute(0, 3, 1, 2).float()


def resize(x, size, crop):
  """As StyleGAN-V ('squash') and VideoGPT ('center') do."""
  if crop == 'squash':
    return F.interpolate(x, (size, size), mode='bilinear', align_corners=False)
  h, w = x.shape[2:]
  scale = size / min(h, w)
  if h < w:
    target = (size, math.ceil(w * scale))
  else:
    target = (math.ceil(h * scale), size)
  x = F.interpolate(x, target, mode='bilinear', align_corners=False)
  top, left = (x.shape[2] - size) // 2, (x.shape[3] - size) // 2
  return x[:, :, top : top + size, left : left + size]


def logits(network, x):
  """Of frames [t, c, h, w] in [0, 255]."""
  x = (2 * x / 255 - 1).permute(1, 0, 2, 3)[None]
  return network(x).mean((2, 3, 4))[0].numpy()


@torch.no_grad()
def make(cases=tuple(CASES)):
  """All golden arrays, of `cases` of CASES."""
  network = build()
  arrays = {}
  for name in cases:
    arrays[name] = logits(network, to_torch(clip(*CASES[name])))
  for crop, shape in THROUGH.items():
    x = resize(to_torch(clip(*shape)), 224, crop)
    arrays[f'through/{crop}'] = logits(network, x)
  for name, (h, w, size, crop) in RESIZES.items():
    x = resize(to_torch(clip(1, h, w)), size, crop)
    arrays[f'resize/{name}'] = x[0].permute(1, 2, 0).numpy()
  return arrays | {'versions': np.array([f'torch {torch.__version__}'])}


if __name__ == '__main__':
  np.savez_compressed(PATH, **make())
