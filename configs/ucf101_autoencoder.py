"""An autoencoder for UCF101, to be shared by many video models.

Factor 4 with 8 channels: a sixth of the numbers of the pixels. It is trained on
random crops of frames, which is enough because its latents depend only on
neighbourhoods. Muon at this rate was best in small runs: 2.1 dB above PCA,
AdamW 1.2 (docs/autoencoders.md).

  python -m vdm.main --config configs/ucf101_autoencoder.py
  python -m vdm.main --config configs/ucf101.py \
      --config.autoencoder.load=runs/ucf101_autoencoder \
      --config.train.order="('image','motion','video')"

Variants, joined by commas after a colon:

  128       frames of 128x128, for configs/ucf101.py:128x16
  f8c16     factor 8, 16 channels: half the numbers, a quarter of the positions
  fsq       64 000 tokens: six channels of 8, 8, 8, 5, 5 and 5 values
  sharp     with an adversarial loss, for texture instead of blur
  temporal  the decoder sees the frames before and after, against flicker
  cpu       a smaller one, 11 minutes of processor time
  smoke     everything small

The end of the stage, and python -m vdm.evaluate autoencoder --workdir RUN,
report PSNR, SSIM, flicker, statistics of the latents, and the worst clips.

Expected: the full size is not measured yet. `cpu`, trained on 20 other videos:
32.05 dB, SSIM 0.953 on clips of UCF101 and from a car, 3.6 dB above PCA;
benchmarks/autoencoder.py. Estimated peak of device memory, of all variants:
0.6 GiB at most (docs/hardware.md).
"""

from vdm.config import recipes
from vdm.config import schema
from vdm.config import variants

VARIANTS = ('128', 'f8c16', 'fsq', 'sharp', 'temporal', 'cpu', 'smoke')


def get_config(variant: str = ''):
  names = variant.split(',')
  resolution = 128 if '128' in names else 64
  config = recipes.on_an_accelerator(every=5000)
  config.data.update(
    name='ucf101',
    source='data/UCF101',
    resolution=resolution,
    frame_rate=25.0,
    flip=True,
  )
  config.autoencoder.update(
    factor=4,
    channels=8,
    initial_logvar=-9.0,
    kl_weight=1e-5,
    multiscale_weight=0.0,
  )
  config.optim.update(name='muon', muon_learning_rate=0.02)
  config.train.update(order=('autoencoder',), eval_clips=256)
  stage = config.stages.autoencoder = schema.stage(
    objective='autoencoder',
    steps=50_000,
    resolution=resolution,
    crop=32,
    batch=256,
    learning_rate=3e-3,
    warmup=500,
    cooldown=0.9,
  )
  if 'f8c16' in names:
    config.autoencoder.update(factor=8, channels=16)
    stage.crop = 64
  if 'fsq' in names:
    levels = (8, 8, 8, 5, 5, 5)
    config.autoencoder.update(bottleneck='fsq', levels=levels, channels=6)
  if 'sharp' in names:
    config.autoencoder.adversarial_weight = 0.05
  if 'temporal' in names:
    config.autoencoder.decoder_temporal = True
    stage.update(frames=8, batch=64)
  if 'cpu' in names:
    config.autoencoder.update(
      encoder_width=64, encoder_blocks=1, decoder_width=128, decoder_blocks=2
    )
    config.data.threads = 2
    config.train.update(
      compute_dtype='float32', log_every=100, eval_every=1000, eval_clips=64
    )
    stage.update(steps=12_000, batch=16, warmup=50)
  return variants.apply(config, variant, VARIANTS)
