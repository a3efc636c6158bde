"""Class-conditional latent video diffusion on UCF101.

16 frames of 64x64 at 25 frames a second, in latents of its own autoencoder of
factor 4, trained in stages: autoencoder, images, motion only, everything.

  python -m vdm.prepare clips --config configs/ucf101.py \
      --config.data.source=/path/to/UCF101
  python -m vdm.main --config configs/ucf101.py

`data.source` is a folder with `UCF-101/` (or the archive) and
`ucfTrainTestlist/`. Variants, joined by commas after a colon:

  64x32     32 frames of 64x64
  128x16    16 frames of 128x128
  uncond    without labels
  given     also from given frames: image to video, prediction, rollouts
  told      at 6.25 to 25 frames a second, conditioned on the rate and on how
            much moves; with `given` as Stable Video Diffusion is
  smoke     everything small: builds, trains every stage and samples on a CPU
  tokens    masked tokens in place of diffusion: docs/tokens.md; with its own
            autoencoder, or that of configs/ucf101_autoencoder.py:fsq
  overfit   learns two clips and shows the samples next to them

  python -m vdm.main --config configs/ucf101.py:128x16,uncond

Expected, on two cores of a CPU (AMD EPYC): `overfit` on two clips in about 15
minutes, the autoencoder at 44.1 dB, samples at 32.4 dB against the clips that
they reproduce. On an H100 a video step takes 0.095 s undivided (accumulate=1),
at most 5.3 hours for that stage's 200 000; what the full sizes learn is not
measured yet, and neither are `told`, `tokens`, `given` and its shares. The
recipe follows what small runs agree on (v-prediction, noise levels shifted
towards noise, image and video batches together, averages of the weights,
guidance at sampling).

The base model of 110 M parameters in bfloat16 is meant for one GPU of 24 GB or
more: clips are processed in parts, and the estimated peak is 10.7 GiB, 10.9
with `64x32`, 13.4 with `128x16` and 16.2 with `tokens`, of the 18.0 that a
program can use of such a card; hours per card are in docs/hardware.md. `tokens`
has attention=cudnn, with which a resumed run is not bit-identical
(docs/training.md).
"""

from vdm.config import recipes
from vdm.config import variants

VARIANTS = (
  '64x32',
  '128x16',
  'uncond',
  'given',
  'told',
  'tokens',
  'smoke',
  'overfit',
)


def get_config(variant: str = ''):
  names = variant.split(',')
  # Parts of a batch that fit a GPU of 24 GB; they change no numbers.
  parts = 2
  if '64x32' in names:
    parts = 4
  if '128x16' in names:
    parts = 8
  config = recipes.four_stages(
    network='base',
    resolution=128 if '128x16' in names else 64,
    frames=32 if '64x32' in names else 16,
    steps=dict(autoencoder=50_000, image=100_000, motion=20_000, video=200_000),
    batch=dict(autoencoder=64, image=256, motion=64, video=64),
    accumulate=dict(motion=parts, video=parts),
    learning_rate=2e-4,
    warmup=1000,
    every=5000,
  )
  config.data.update(
    name='ucf101', source='data/UCF101', frame_rate=25.0, flip=True
  )
  config.autoencoder.update(factor=4, initial_logvar=-9.0, kl_weight=1e-5)
  config.model.num_classes = 0 if 'uncond' in names else 101
  config.sample.update(guidance=2.0, steps=50, final=256)
  config.train.eval_clips = 256
  if 'told' in names:
    config.data.max_stride = 4
    config.model.scalars = ('frame_rate', 'motion')
  if 'tokens' in names:
    tokens(config)
  return variants.apply(config, variant, VARIANTS)


def tokens(config):
  """One stage of masked tokens, with single frames in a fifth of its steps."""
  levels = (8, 8, 8, 5, 5, 5)
  config.autoencoder.update(bottleneck='fsq', levels=levels, channels=6)
  config.model.update(
    kind='transformer', head_size=64, embed_width=768, attention='cudnn'
  )
  # 4 096 positions: all pairs of them would be most of the work.
  config.model.transformer.update(width=768, depth=12, joint=False)
  config.sample.steps = 16
  config.train.order = ('autoencoder', 'video')
  for name in ('image', 'motion'):
    del config.stages[name]
  config.stages.video.update(objective='tokens', accumulate=16)
