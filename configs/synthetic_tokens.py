"""Masked tokens on simple moving shapes, on a CPU.

The scenes of configs/synthetic.py. The autoencoder's latents are tokens of 8 x 8
px, 1 024 a clip, of 16 bits each (8 x 8 x 8 values and 5 x 5 x 5, in two
groups), which its decoder sees beside those of the frames before and after; a
transformer of 0.3 M parameters learns to tell those that are hidden, and fills
in videos in 12 steps (docs/tokens.md).

  bash launch/local.sh --config configs/synthetic_tokens.py

Blocks attend over (t h w): on a CPU that takes the time of attention over (h w)
and then t, and objects keep their identity only with it. Variants:

  given     also from a first frame, predictions, interpolations and rollouts
  smoke     the same in minutes
  overfit   learns two clips

Expected: its 1 500 and 3 000 steps are not measured yet; alone on one core (AMD
EPYC) a step of the second stage takes 0.8 s. With 800 and 700 steps, seed 0, on
a core that other work shared, in 34 minutes: autoencoder 26.3 dB; of 128
samples 32 % show an object throughout, 23 % follow their label, and 4 % of
those that can be judged keep their shape. Coloured blobs that move, on the way
and no more; docs/tokens.md has the numbers beside the diffusion demo's.
"""

from vdm.config import recipes
from vdm.config import variants

VARIANTS = ('given', 'smoke', 'overfit')


def get_config(variant: str = ''):
  config = recipes.scenes()
  config.autoencoder.update(
    bottleneck='fsq',
    levels=(8, 8, 8, 5, 5, 5),
    channels=6,
    decoder_temporal=True,
  )
  config.model.update(kind='transformer', num_classes=8, label_dropout=0.15)
  config.model.transformer.update(width=64, depth=4)
  # In a random order: the certain tokens are the ground, see docs/tokens.md.
  config.sample.update(steps=12, order_noise=1000.0)
  config.score.every = 2000
  config.train.update(eval_every=1000, preview_every=1000)
  config.stages.autoencoder.frames = 4
  config.stages.video.update(objective='tokens', batch=8, steps=1500)
  if 'smoke' in variant.split(','):
    config.data.scenes.update(train=64, validation=16)
  return variants.apply(config, variant, VARIANTS)
