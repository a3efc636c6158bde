"""Runs tiny autoencoders in PyTorch, on weights by a formula and on real ones.

    PYTHONPATH=tests python tests/golden/make_tiny.py [SHARED]

writes `tiny.npz` beside this file. Of the networks with weights by the formula
of formula_weights.py: latents `NAME/z` and frames `NAME/y` [h w c] of the
frame `frame(NAME)`, through diffusers' AutoencoderTiny. Of taef2 with its real
weights, from SHARED/weights, on frames of SHARED/clips: of latents and frames
every STRIDE-th value, `taef2/NUMBER/z` and `y`, and the `psnr` of the frame.
Needs torch, diffusers, av and cv2, in an environment of their own.
"""

import pathlib
import sys

import diffusers
import formula_weights
import numpy as np
import tiny_videos
import torch
from torch import nn

PATH = pathlib.Path(__file__).resolve().with_name('tiny.npz')
CHANNELS = {'taesd': 4, 'taef1': 16}
SIZE = (24, 40)  # Height and width of the frames of those.
# File, number of the frame, size.
FRAMES = (
  ('driving/drive_solidWhiteRight.mp4', 10, 64),
  ('natural/person_asl_walk.mkv', 20, 64),
  ('ucf101/UCF-101/Punch/v_Punch_g03_c01.avi', 5, 64),
  ('driving/drive_test_video.mp4', 0, 128),
)
STRIDE = 37


def frame(name):
  """A frame in [-1, 1] of smooth colours and noise, [h, w, 3]."""
  random = np.random.RandomState(len(name))
  y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 10
  smooth = np.stack([np.sin(x + y), np.cos(x), np.sin(y - 2 * x)], -1)
  noise = random.uniform(-0.3, 0.3, smooth.shape)
  return (0.7 * smooth + noise).astype(np.float32)


def to_torch(x):
  return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]


def to_numpy(x):
  return x[0].numpy().transpose(1, 2, 0)


def convolution(cin, cout, **kwargs):
  return nn.Conv2d(cin, cout, 3, padding=1, **kwargs)


class Block(nn.Module):
  """As in ComfyUI's taesd.py, where taef2 was published with its layout."""

  def __init__(self, width=64, normed=False):
    super().__init__()
    self.conv = nn.Sequential(
      convolution(width, width),
      nn.ReLU(),
      convolution(width, width),
      nn.ReLU(),
      convolution(width, width),
    )
    self.pool = None
    if normed:
      self.pool = nn.Sequential(
        nn.Conv2d(width, 4 * width, 1, bias=False),
        nn.GroupNorm(4, 4 * width),
        nn.ReLU(),
        nn.Conv2d(4 * width, width, 1, bias=False),
      )

  def forward(self, x):
    if self.pool is not None:
      x = x + self.pool(x)
    return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
  def forward(self, x):
    return torch.tanh(x / 3) * 3


def taef2_encoder():
  modules = [convolution(3, 64), Block()]
  for normed in (False, False, True):
    modules.append(convolution(64, 64, stride=2, bias=False))
    modules += [Block(normed=normed) for _ in range(3)]
  return nn.Sequential(*modules, convolution(64, 32))


def taef2_decoder():
  modules = [Clamp(), convolution(32, 64), nn.ReLU()]
  for normed in (True, False, False):
    modules += [Block(normed=normed) for _ in range(3)]
    modules += [nn.Upsample(scale_factor=2), convolution(64, 64, bias=False)]
  return nn.Sequential(*modules, Block(), convolution(64, 3))


def psnr(x, y):
  """Of frames in [-1, 1], the second clipped to that, dB."""
  return 10 * np.log10(4 / np.mean((np.clip(y, -1, 1) - x) ** 2))


@torch.no_grad()
def make_formula(name):
  """{'z', 'y'} of a network with weights by the formula."""
  network = formula_weights.fill(
    diffusers.AutoencoderTiny(latent_channels=CHANNELS[name])
  )
  z = network.encode(to_torch(frame(name))).latents
  return {'z': to_numpy(z), 'y': to_numpy(network.decode(z).sample)}


@torch.no_grad()
def make_taef2(shared, number):
  """{'z', 'y', 'psnr'} of a real frame, whole."""
  sides = []
  for side, network in (('en', taef2_encoder()), ('de', taef2_decoder())):
    path = shared / f'weights/taef2_{side}coder.pth'
    state = torch.load(path, weights_only=True)
    network.load_state_dict({k: v.float() for k, v in state.items()})
    sides.append(network)
  name, index, size = FRAMES[number]
  x = tiny_videos.real_frame(shared / 'clips' / name, index, size)
  x = x.astype(np.float32) / 127.5 - 1
  z = sides[0]((to_torch(x) + 1) / 2)
  y = to_numpy(sides[1](z) * 2 - 1)
  return {'z': to_numpy(z), 'y': y, 'psnr': psnr(x, y)}


def make(shared):
  """All golden arrays."""
  arrays = {
    f'{name}/{key}': value
    for name in CHANNELS
    for key, value in make_formula(name).items()
  }
  for number in range(len(FRAMES)):
    for key, value in make_taef2(shared, number).items():
      arrays[f'taef2/{number}/{key}'] = np.ravel(value)[::STRIDE]
  versions = [
    f'diffusers {diffusers.__version__}',
    f'torch {torch.__version__}',
  ]
  return arrays | {'versions': np.array(versions)}


if __name__ == '__main__':
  shared = sys.argv[1] if len(sys.argv) > 1 else PATH.parents[3] / 'shared'
  np.savez_compressed(PATH, **make(pathlib.Path(shared)))
