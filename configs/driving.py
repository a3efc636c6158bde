"""Latent video diffusion on driving: folders of dashcam recordings.

16 frames of 128x128 at 10 frames a second (1.6 s).

  python -m vdm.prepare clips --config configs/driving.py \
      --config.data.source=/path/to/recordings
  python -m vdm.main --config configs/driving.py

Dashcams record for hours and cut nothing, so: no search for cuts (a lamp at
night, a bump or a tunnel would pass for one), standing at a red light is taken
out as frozen where nothing moves for four seconds, jpeg (4:4:4, quality 95)
keeps an hour at some 0.3 GB, and files that a camera began every few minutes
are one recording if their folder is: `data.group` is the sub-folder. No
mirroring: traffic keeps to one side. Variants as in configs/ucf101.py:
`smoke`, `overfit`.

Expected: not measured yet; `smoke`, 4 minutes of two cores.
"""

from vdm.config import schema
from vdm.config import variants


def get_config(variant=''):
  config = schema.default()
  config.data.update(
    name='driving',
    source='recordings',
    resolution=128,
    frame_rate=10.0,
    encoding='jpeg',
    min_frames=16,
    group=r'^(.+)/[^/]+$',
    flip=False,
    threads=8,
  )
  config.data.screening.update(
    rules=('blank', 'frozen', 'letterbox', 'low_frame_rate', 'duplicate'),
    frozen_seconds=4.0,
  )
  config.autoencoder.update(
    factor=8,
    channels=8,
    encoder_width=128,
    encoder_blocks=2,
    decoder_width=256,
    decoder_blocks=4,
  )
  config.model.update(schema.PRESETS['small'])
  config.diffusion.update(density_mean=0.8, density_std=1.4)
  config.train.update(
    order=('autoencoder', 'image', 'motion', 'video'),
    compute_dtype='bfloat16',
    log_every=50,
    eval_every=2000,
    preview_every=2000,
    save_every=2000,
  )
  stage = dict(learning_rate=3e-4, warmup=500, resolution=128)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder',
    steps=30_000,
    batch=32,
    **stage | dict(learning_rate=1e-3),
  )
  config.stages.image = schema.stage(steps=30_000, batch=64, **stage)
  config.stages.motion = schema.stage(
    steps=10_000,
    frames=16,
    batch=16,
    frozen=schema.SPATIAL,
    cooldown=0.0,
    **stage,
  )
  config.stages.video = schema.stage(
    steps=60_000, frames=16, batch=16, image_fraction=0.2, **stage
  )
  if variant == 'smoke':
    variants.smoke(config)
  elif variant == 'overfit':
    variants.overfit(config)
  elif variant:
    raise ValueError(f'configs/driving.py has no variant {variant!r}.')
  return config
