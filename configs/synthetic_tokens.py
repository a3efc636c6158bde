"""Masked tokens on simple moving shapes, on a CPU.

The scenes of configs/synthetic.py. The autoencoder's latents are tokens of two
frames and 8 x 8 px, 512 a clip, of 21 bits each (8 x 8 x 8 values and 5^5 more,
in three groups), which its decoder sees with those before and after; a
transformer of 0.44 M parameters learns to predict masked ones, and generates
videos in 12 steps (docs/tokens.md).

  bash launch/local.sh --config configs/synthetic_tokens.py

Blocks attend over (t h w): on a CPU that takes the time of attention over (h w)
and then t, and objects keep their identity only with it. Variants:

  given     also from a first frame, predictions, interpolations and rollouts
  smoke     the same in minutes
  overfit   learns two clips

Expected, on one thread of a core (AMD EPYC, one seed): autoencoder 2 minutes,
28.6 dB; videos 0.43 s a step alone, 22 minutes, and not measured yet. With a
decoder that sees a token alone (27.3 dB, objects move only in every second
frame), and the same steps: of 128 samples 68 % show an object throughout, 32 %
follow their label, 7 % of those that can be judged keep their shape. The
diffusion model of configs/synthetic.py is far better in that time.
"""

from vdm.config import recipes
from vdm.config import variants

VARIANTS = ('given', 'smoke', 'overfit')


def get_config(variant: str = ''):
  config = recipes.scenes()
  config.autoencoder.update(
    bottleneck='fsq',
    levels=(8, 8, 8, 5, 5, 5, 5, 5),
    channels=8,
    time_factor=2,
    decoder_temporal=True,
  )
  config.model.update(kind='transformer', num_classes=8, label_dropout=0.15)
  config.model.transformer.update(width=64, depth=4)
  # In a random order: the certain tokens are the ground, see docs/tokens.md.
  config.sample.update(steps=12, order_noise=1000.0)
  config.score.every = 2000
  config.train.update(eval_every=1000, preview_every=1000)
  config.stages.autoencoder.frames = 4
  config.stages.video.update(objective='tokens', batch=8, steps=3000)
  if 'smoke' in variant.split(','):
    config.data.scenes.update(train=64, validation=16)
  return variants.apply(config, variant, VARIANTS)
