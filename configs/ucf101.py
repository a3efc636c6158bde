"""Class-conditional latent video diffusion on UCF101.

16 frames of 64x64 at 25 frames a second, in latents of an own autoencoder of
factor 4, trained in stages: autoencoder, images, motion alone, everything.

  python -m vdm.prepare clips --config configs/ucf101.py \
      --config.data.source=/path/to/UCF101
  python -m vdm.main --config configs/ucf101.py

`data.source` is a folder that holds `UCF-101/` (or the archive) and
`ucfTrainTestlist/`. Variants, joined by commas after a colon:

  64x32     32 frames of 64x64
  128x16    16 frames of 128x128
  uncond    without labels
  smoke     everything small: builds, trains every stage and samples on a CPU
  overfit   learns one batch and shows the samples beside it

  python -m vdm.main --config configs/ucf101.py:128x16,uncond

Expected, on two cores of a CPU (AMD EPYC): `overfit` on two clips in about 15
minutes, the autoencoder at 44.1 dB, samples at 32.4 dB from the clips they
show, with their motion. Of the full sizes nothing is measured yet. The recipe
follows what small runs agree on (v-prediction, noise levels shifted towards
noise, image and video batches together, averages of the weights, guidance at
sampling). A base model of 121 M parameters in bfloat16 is meant for one GPU of
24 GB or more.
"""

from vdm.config import schema
from vdm.config import variants as config_variants


def get_config(variants=''):
  variants = set(filter(None, variants.split(',')))
  known = {'64x32', '128x16', 'uncond', 'smoke', 'overfit'}
  if variants - known:
    raise ValueError(
      f'configs/ucf101.py has no variant {sorted(variants - known)[0]!r}, '
      f'only {", ".join(sorted(known))}.'
    )
  resolution = 128 if '128x16' in variants else 64
  frames = 32 if '64x32' in variants else 16

  config = schema.default()
  config.data.update(
    name='ucf101',
    source='data/UCF101',
    resolution=resolution,
    frame_rate=25.0,
    flip=True,
    threads=8,
  )
  config.autoencoder.update(
    factor=4,
    channels=8,
    encoder_width=128,
    encoder_blocks=2,
    decoder_width=256,
    decoder_blocks=4,
    initial_logvar=-9.0,
    kl_weight=1e-5,
  )
  config.model.update(schema.PRESETS['base'])
  config.model.num_classes = 0 if 'uncond' in variants else 101
  config.diffusion.update(density_mean=0.8, density_std=1.4)
  config.optim.update(name='adamw', b2=0.99)
  config.sample.update(guidance=2.0, steps=50, final=256)
  config.train.update(
    order=('autoencoder', 'image', 'motion', 'video'),
    compute_dtype='bfloat16',
    log_every=50,
    eval_every=5000,
    preview_every=5000,
    save_every=5000,
    eval_clips=256,
  )
  stage = dict(resolution=resolution, learning_rate=2e-4, warmup=1000)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder',
    steps=50_000,
    batch=64,
    **stage | dict(learning_rate=1e-3),
  )
  config.stages.image = schema.stage(steps=100_000, batch=256, **stage)
  # Time is learned first, on top of the images' kernels.
  config.stages.motion = schema.stage(
    steps=20_000,
    frames=frames,
    batch=64,
    frozen=schema.SPATIAL,
    cooldown=0.0,
    **stage,
  )
  config.stages.video = schema.stage(
    steps=200_000,
    frames=frames,
    batch=64,
    image_fraction=0.2,
    **stage,
  )
  if 'overfit' in variants:
    config_variants.overfit(config)
  if 'smoke' in variants:
    config_variants.smoke(config)
  return config
