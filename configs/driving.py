"""Latent video diffusion on driving: folders of dashcam recordings.

16 frames of 128x128 at 10 frames a second (1.6 s).

  python -m vdm.prepare clips --config configs/driving.py \
      --config.data.source=/path/to/recordings
  python -m vdm.main --config configs/driving.py

Dashcams record for hours without cuts. Hence:
  no search for cuts, which a lamp at night, a bump or a tunnel resembles;
  waiting at a red light is left out as frozen, after 4 s without motion;
  jpeg (4:4:4, quality 95) stores an hour in about 0.3 GB;
  the files of a folder are one recording (`data.group`), because cameras start
  a new file every few minutes;
  no mirroring, because traffic keeps to one side.
Variants as in configs/ucf101.py: `smoke`, `overfit`, and

  wide      frames of 224x128: the whole road and not its middle square

  python -m vdm.prepare clips --config configs/driving.py:wide \
      --config.data.source=/path/to/recordings
  python -m vdm.main --config configs/driving.py:wide

A 16:9 frame loses 1.6 % of its width, so that the sides are multiples of 16.
Other sizes: `data.resolution` and `data.width`, and those of each stage.

Expected: not measured yet; `smoke`, 4 minutes of two cores. Estimated peak of
device memory: 3.1 GiB, `wide` 5.6 GiB; hours per card are in docs/hardware.md.
"""

from vdm.config import recipes
from vdm.config import variants

VARIANTS = ('wide', 'smoke', 'overfit')


def get_config(variant: str = ''):
  config = recipes.four_stages(
    network='small',
    resolution=128,
    width=224 if 'wide' in variant.split(',') else 0,
    steps=dict(autoencoder=30_000, image=30_000, motion=10_000, video=60_000),
    batch=dict(autoencoder=32, image=64, motion=16, video=16),
    learning_rate=3e-4,
    warmup=500,
    every=2000,
  )
  config.data.update(
    name='driving',
    source='recordings',
    frame_rate=10.0,
    encoding='jpeg',
    min_frames=16,
    group=r'^(.+)/[^/]+$',
  )
  config.data.screening.update(
    rules=('blank', 'frozen', 'letterbox', 'low_frame_rate', 'duplicate'),
    frozen_seconds=4.0,
  )
  return variants.apply(config, variant, VARIANTS)
