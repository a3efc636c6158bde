"""Runs diffusers' AutoencoderKL with weights by a formula.

    PYTHONPATH=tests python tests/golden/make_autoencoder_kl.py

writes `autoencoder_kl.npz` beside this file: per network of NETWORKS the
posterior's `mean` and `logvar` and the reconstruction `y` of the mean [h w c]
of the frame `frame()`, with the weights of formula_weights.py. Needs torch and
diffusers, in an environment of their own.
"""

import pathlib

import diffusers
import formula_weights
import numpy as np
import torch

PATH = pathlib.Path(__file__).resolve().with_name('autoencoder_kl.npz')
NETWORKS = {
  'sd': dict(widths=(16, 32, 32), blocks=2, channels=4, groups=8),
  'flux1': dict(
    widths=(16, 32, 32), blocks=2, channels=16, groups=8, quant=False
  ),
  'no_attention': dict(
    widths=(16, 24), blocks=2, channels=4, groups=4, attention=False
  ),
  'four_levels': dict(widths=(32, 32, 64, 64), blocks=1, channels=4, groups=32),
}
FULL = dict(widths=(128, 256, 512, 512), blocks=2, channels=4, groups=32)


def frame(height=32, width=24):
  """A frame in [-1, 1] of smooth colours and noise, [h, w, 3]."""
  random = np.random.RandomState(0)
  y, x = np.mgrid[:height, :width] / 10
  smooth = np.stack([np.sin(x + y), np.cos(x), np.sin(y - 2 * x)], -1)
  noise = random.uniform(-0.3, 0.3, smooth.shape)
  return (0.7 * smooth + noise).astype(np.float32)


def build(*, widths, blocks, channels, groups, quant=True, attention=True):
  return formula_weights.fill(
    diffusers.AutoencoderKL(
      block_out_channels=widths,
      layers_per_block=blocks,
      latent_channels=channels,
      norm_num_groups=groups,
      down_block_types=('DownEncoderBlock2D',) * len(widths),
      up_block_types=('UpDecoderBlock2D',) * len(widths),
      use_quant_conv=quant,
      use_post_quant_conv=quant,
      mid_block_add_attention=attention,
    )
  )


def to_numpy(x):
  return x[0].numpy().transpose(1, 2, 0)


@torch.no_grad()
def run(network, x):
  """{'mean', 'logvar', 'y'} of a frame [h, w, 3]."""
  x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]
  posterior = network.encode(x).latent_dist
  return {
    'mean': to_numpy(posterior.mean),
    'logvar': to_numpy(posterior.logvar),
    'y': to_numpy(network.decode(posterior.mean).sample),
  }


def make():
  """All golden arrays."""
  arrays = {
    f'{name}/{key}': value
    for name, network in NETWORKS.items()
    for key, value in run(build(**network), frame()).items()
  }
  versions = [
    f'diffusers {diffusers.__version__}',
    f'torch {torch.__version__}',
  ]
  return arrays | {'versions': np.array(versions)}


if __name__ == '__main__':
  np.savez_compressed(PATH, **make())
