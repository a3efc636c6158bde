"""Runs C3D in PyTorch with weights by a formula.

    PYTHONPATH=tests python tests/golden/make_c3d.py

writes `c3d.npz` beside this file: logits [101] of `clip()` by networks of the
published sizes ('full') and of an eighth of them ('small'), weights by
formula_weights.py, and the clip as TGANv2 gives it to the network: BGR,
resized with aligned corners, less the mean. Needs torch, in an environment of
its own.
"""

import pathlib

import formula_weights
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

PATH = pathlib.Path(__file__).resolve().with_name('c3d.npz')
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
# name: (widths, hidden).
NETWORKS = {
  'small': (tuple(w // 8 for w in WIDTHS), 64),
  'full': (WIDTHS, 4096),
}


def clip(t=16, h=48, w=64):
  """Smooth colours that move, and noise; uint8 [t, h, w, 3]."""
  random = np.random.RandomState(0)
  k, y, x = np.mgrid[:t, :h, :w] / 20
  smooth = np.stack([np.sin(x + y + 9 * k), np.cos(x - 5 * k), np.sin(y)], -1)
  noise = random.randint(-30, 31, smooth.shape)
  return np.clip(127.5 + 90 * smooth + noise, 0, 255).astype(np.uint8)


def mean():
  """As mean2.npz: [1, 3, 16, 128, 171], BGR."""
  random = np.random.RandomState(1)
  return (100 + 20 * random.standard_normal((1, 3, 16, 128, 171))).astype('f')


class C3D(nn.Module):
  """As TGANv2's c3d_ucf101.py; max-pooling there covers the border."""

  def __init__(self, widths, hidden):
    super().__init__()
    cin = 3
    for name, width in zip(
      ('1a', '2a', '3a', '3b', '4a', '4b', '5a', '5b'), widths
    ):
      self.add_module(f'conv{name}', nn.Conv3d(cin, width, 3, padding=1))
      cin = width
    self.fc6 = nn.Linear(cin * 4 * 4, hidden)
    self.fc7 = nn.Linear(hidden, hidden)
    self.fc8 = nn.Linear(hidden, 101)

  def forward(self, x):
    """[n, 3, 16, 112, 112] -> [n, 101]."""
    pool = nn.MaxPool3d(2, ceil_mode=True)
    x = F.max_pool3d(F.relu(self.conv1a(x)), (1, 2, 2), ceil_mode=True)
    x = pool(F.relu(self.conv2a(x)))
    x = pool(F.relu(self.conv3b(F.relu(self.conv3a(x)))))
    x = pool(F.relu(self.conv4b(F.relu(self.conv4a(x)))))
    x = pool(F.relu(self.conv5b(F.relu(self.conv5a(x)))))
    x = F.relu(self.fc6(x.flatten(1)))
    return self.fc8(F.relu(self.fc7(x)))


def prepare(video):
  """uint8 [t, h, w, 3] -> [1, 3, t, 112, 112]."""
  x = torch.from_numpy(video[..., ::-1].copy()).permute(0, 3, 1, 2).float()
  x = F.interpolate(x, (112, 112), mode='bilinear', align_corners=True)
  cut = torch.from_numpy(mean()[:, :, :, 8:120, 8:120])
  return x.permute(1, 0, 2, 3)[None] - cut


@torch.no_grad()
def make(names=tuple(NETWORKS)):
  """All golden arrays, of `names` of NETWORKS."""
  x = prepare(clip())
  arrays = {'input': x.numpy().ravel()[::997]}
  for name in names:
    network = formula_weights.fill(C3D(*NETWORKS[name]))
    arrays[name] = network(x)[0].numpy()
  return arrays | {'versions': np.array([f'torch {torch.__version__}'])}


if __name__ == '__main__':
  np.savez_compressed(PATH, **make())
