"""Latent video diffusion on a folder of your own videos, without labels.

16 frames of 64x64 at 12.5 frames a second (1.28 s). Any videos will do: they
are cut into shots, and shots that are blank, frozen, watermarked, too short or
duplicates are left out, each with its reason in data_report.html.

  python -m vdm.prepare clips --config configs/video_folder.py \
      --config.data.source=/path/to/videos
  python -m vdm.main --config configs/video_folder.py

A tenth of the recordings is held out for validation. Variants as in
configs/ucf101.py: `smoke`, `overfit`, and

  cpu       a small network, to compare settings on a CPU
  enlarge   16 frames of 128x128 from those of 64x64 (docs/cascade.md), on a CPU

  python -m vdm.prepare clips --config configs/video_folder.py:enlarge \
      --config.data.source=/path/to/videos
  python -m vdm.main --config configs/video_folder.py:enlarge
  python -m vdm.sample --workdir runs/video_folder_enlarge --low small.mp4

docs/your_videos.md goes from footage to a model. Sub-folders become classes;
`--config.model.num_classes=N` trains on them (docs/data.md).

Expected: not measured yet; `smoke`, 4 minutes of two cores. Estimated peak of
device memory: 5.6 GiB; hours per card are in docs/hardware.md. `enlarge`,
trained on four minutes of video: 18 minutes on one thread of a core (AMD EPYC),
2.4 GiB; on recordings it did not see 31.5 dB, unsharp masking 31.1 (one seed,
docs/cascade.md). `cpu`, on the same four minutes and one thread: autoencoder 2
minutes, 31.4 dB on recordings it did not see; videos 12 minutes, 2 GiB,
held-out loss 0.40, and nothing in the samples can be recognised.
"""

from vdm.config import recipes
from vdm.config import schema
from vdm.config import variants

VARIANTS = ('cpu', 'enlarge', 'smoke', 'overfit')


def get_config(variant: str = ''):
  names = variant.split(',')
  if 'cpu' in names:
    config = cpu()
  elif 'enlarge' in names:
    config = recipes.scenes()
    recipes.enlarging(config)
    config.data.resolution = 128
  else:
    config = full()
  config.data.update(
    name='video_folder', source='videos', frame_rate=12.5, min_frames=16
  )
  config.data.screening.rules = schema.SCREENING
  return variants.apply(config, variant, VARIANTS)


def full():
  """Four stages, with an autoencoder for real textures."""
  config = recipes.four_stages(
    network='small',
    steps=dict(autoencoder=30_000, image=30_000, motion=10_000, video=60_000),
    batch=dict(autoencoder=64, image=128, motion=32, video=32),
    learning_rate=3e-4,
    warmup=500,
    every=2000,
  )
  config.autoencoder.update(factor=4, initial_logvar=-9.0, kl_weight=1e-5)
  return config


def cpu():
  """Two stages and a small network; textures need all of the autoencoder."""
  config = recipes.scenes()
  config.autoencoder.update(
    factor=4, initial_logvar=-9.0, kl_weight=1e-5, multiscale_weight=0.0
  )
  config.model.update(recipes.NETWORKS['fine'])
  config.diffusion.update(density_mean=0.8, density_std=1.4)
  config.data.flip = True
  config.sample.update(guidance=1.0, final=64)
  config.score.every = 0
  config.stages.autoencoder.update(crop=32, batch=16, steps=4000)
  config.stages.video.update(batch=4, steps=1500)
  return config
