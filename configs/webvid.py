"""Latent video diffusion on captioned web videos, WebVid's layout.

16 frames of 64x64 at 12 frames a second (1.33 s). `data.source` holds the
downloaded files as `<page_dir>/<videoid>.mp4`, and the manifest is WebVid's
table (videoid, contentUrl, duration, page_dir, name) as .csv, .jsonl or
.parquet; for other tables set `--config.data.captions.file=...` and so on.

  python -m vdm.prepare clips --config configs/webvid.py \
      --config.data.source=/path/to/videos \
      --config.data.captions.manifest=/path/to/results_10M_train.csv
  python -m vdm.main --config configs/webvid.py

The run learns the captions with a vocabulary of their 16 384 most frequent
words; `--config.model.text.encoder=none` trains without them. All rules over
pictures are in force except `overlay`: most stock footage has a watermark,
so that rule would leave out most of it. Overlays are still measured, and the
report has their share per publisher; `--config.data.screening.rules` puts the
rule in force. Variants as in configs/ucf101.py: `smoke`, `overfit`.

Expected: not measured yet; `smoke`, 2 minutes of two cores. For one GPU of
24 GB: estimated peak 12.6 GiB, without captions 10.7; hours per card are in
docs/hardware.md.
"""

from vdm.config import recipes
from vdm.config import schema
from vdm.config import variants


def get_config(variant: str = ''):
  config = recipes.four_stages(
    network='base',
    steps=dict(autoencoder=50_000, image=100_000, motion=20_000, video=200_000),
    batch=dict(autoencoder=64, image=256, motion=64, video=64),
    accumulate=dict(motion=2, video=2),  # For 24 GB; changes no numbers.
    learning_rate=2e-4,
    warmup=1000,
    every=5000,
  )
  config.data.update(
    name='webvid',
    source='webvid',
    frame_rate=12.0,
    encoding='jpeg',
    min_frames=16,
  )
  config.data.screening.rules = tuple(
    rule for rule in schema.SCREENING if rule != 'overlay'
  )
  config.data.captions.update(min_seconds=2.0, max_seconds=120.0)
  config.autoencoder.factor = 4
  config.model.text.update(
    encoder='learned', length=40, width=512, vocabulary=16_384
  )
  return variants.apply(config, variant)
