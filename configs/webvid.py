"""Latent video diffusion on captioned web videos, WebVid's layout.

16 frames of 64x64 at 12 frames a second (1.33 s). `data.source` holds the
downloaded files as `<page_dir>/<videoid>.mp4`, and the manifest is WebVid's
table (videoid, contentUrl, duration, page_dir, name) as .csv, .jsonl or
.parquet; other tables by `--config.data.captions.file=...` and so on.

  python -m vdm.prepare clips --config configs/webvid.py \
      --config.data.source=/path/to/videos \
      --config.data.captions.manifest=/path/to/results_10M_train.csv
  python -m vdm.main --config configs/webvid.py

Captions are stored with every shot; training here is without them. Every rule
over pictures is in force but one: most stock footage carries a watermark, so
`overlay` would leave out most of it. It is measured all the same, and the
report has its share per publisher; put it in by
`--config.data.screening.rules`. Variants as in configs/ucf101.py: `smoke`,
`overfit`.

Expected: not measured yet; `smoke`, 2 minutes of two cores.
"""

from vdm.config import schema
from vdm.config import variants


def get_config(variant=''):
  config = schema.default()
  config.data.update(
    name='webvid',
    source='webvid',
    frame_rate=12.0,
    encoding='jpeg',
    min_frames=16,
    threads=8,
  )
  config.data.screening.rules = tuple(
    rule for rule in schema.SCREENING if rule != 'overlay'
  )
  config.data.captions.update(min_seconds=2.0, max_seconds=120.0)
  config.autoencoder.update(
    factor=4,
    channels=8,
    encoder_width=128,
    encoder_blocks=2,
    decoder_width=256,
    decoder_blocks=4,
  )
  config.model.update(schema.PRESETS['base'])
  config.diffusion.update(density_mean=0.8, density_std=1.4)
  config.train.update(
    order=('autoencoder', 'image', 'motion', 'video'),
    compute_dtype='bfloat16',
    log_every=50,
    eval_every=5000,
    preview_every=5000,
    save_every=5000,
  )
  stage = dict(learning_rate=2e-4, warmup=1000)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder',
    steps=50_000,
    batch=64,
    **stage | dict(learning_rate=1e-3),
  )
  config.stages.image = schema.stage(steps=100_000, batch=256, **stage)
  config.stages.motion = schema.stage(
    steps=20_000,
    frames=16,
    batch=64,
    frozen=schema.SPATIAL,
    cooldown=0.0,
    **stage,
  )
  config.stages.video = schema.stage(
    steps=200_000, frames=16, batch=64, image_fraction=0.2, **stage
  )
  if variant == 'smoke':
    variants.smoke(config)
  elif variant == 'overfit':
    variants.overfit(config)
  elif variant:
    raise ValueError(f'configs/webvid.py has no variant {variant!r}.')
  return config
