"""Latent video diffusion on a folder of your own videos, without labels.

16 frames of 64x64 at 12.5 frames a second (1.28 s). Any videos: they are cut
into shots, and what is blank, frozen, marked, too short or there twice is left
out, each with its reason in data_report.html.

  python -m vdm.prepare clips --config configs/video_folder.py \
      --config.data.source=/path/to/videos
  python -m vdm.main --config configs/video_folder.py

A tenth of the recordings is held out for validation. Variants as in
configs/ucf101.py: `smoke`, `overfit`.
Expected: not measured yet; `smoke`, 4 minutes of two cores.
"""

from vdm.config import schema
from vdm.config import variants


def get_config(variant=''):
  config = schema.default()
  config.data.update(
    name='video_folder',
    source='videos',
    frame_rate=12.5,
    min_frames=16,
    threads=8,
  )
  config.data.screening.rules = schema.SCREENING
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
  stage = dict(learning_rate=3e-4, warmup=500)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder',
    steps=30_000,
    batch=64,
    **stage | dict(learning_rate=1e-3),
  )
  config.stages.image = schema.stage(steps=30_000, batch=128, **stage)
  config.stages.motion = schema.stage(
    steps=10_000,
    frames=16,
    batch=32,
    frozen=schema.SPATIAL,
    cooldown=0.0,
    **stage,
  )
  config.stages.video = schema.stage(
    steps=60_000, frames=16, batch=32, image_fraction=0.2, **stage
  )
  if variant == 'smoke':
    variants.smoke(config)
  elif variant == 'overfit':
    variants.overfit(config)
  elif variant:
    raise ValueError(f'configs/video_folder.py has no variant {variant!r}.')
  return config
