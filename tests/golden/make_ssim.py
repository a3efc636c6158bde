"""Makes ssim.npz: scikit-image's SSIM and PSNR of small frames.

  pip install scikit-image
  python tests/golden/make_ssim.py

The frames are smooth, so that windows have structure, and the second of each
pair is the first with noise, blurred, darker, or another frame.
"""

import pathlib

import numpy as np
import skimage
from skimage import metrics


def frames():
  """Pairs of uint8 frames of 20 x 24 px, [n 2 h w 3]."""
  generator = np.random.default_rng(0)
  y, x = np.mgrid[:20, :24]

  def smooth():
    waves = [
      generator.uniform(10, 50)
      * np.sin(y * generator.uniform(0, 1) + x * generator.uniform(0, 1) + c)
      for c in generator.uniform(0, 6, 3)
    ]
    return 128 + np.stack(waves, axis=-1)

  first = smooth()
  second = [
    first + generator.normal(0, 12, first.shape),
    sum(np.roll(first, shift, axis=1) for shift in (-1, 0, 1)) / 3,
    0.6 * first,
    smooth(),
  ]
  pairs = np.stack([np.stack([first, other]) for other in second])
  return np.clip(np.rint(pairs), 0, 255).astype(np.uint8)


def main():
  pairs = frames()
  ssim = [
    metrics.structural_similarity(
      *pair,
      data_range=255,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    )
    for pair in pairs
  ]
  psnr = [metrics.peak_signal_noise_ratio(*p, data_range=255) for p in pairs]
  np.savez_compressed(
    pathlib.Path(__file__).with_name('ssim.npz'),
    pairs=pairs,
    ssim=ssim,
    psnr=psnr,
    version=f'scikit-image {skimage.__version__}',
  )
  print(ssim, psnr)


if __name__ == '__main__':
  main()
