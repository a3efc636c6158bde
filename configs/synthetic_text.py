"""Latent video diffusion from words, on a CPU.

The scenes of configs/synthetic.py with a caption each, rendered from the truth:
size, colour (six names), shape and direction of the object, the ground and the
number, in several wordings, as "a small red disc moves up and to the left" or
"downwards drifts a blue circle". A network of two layers reads the words and is
trained along; nothing is downloaded. A tenth of the triples of colour, shape
and direction is never shown in training: whether their prompts are followed
says whether words are understood one by one.

  bash launch/local.sh --config configs/synthetic_text.py
  python -m vdm.sample --workdir runs/synthetic_text \
      --caption 'a red disc moves up and to the left'

Previews and final videos are of the same prompts, of seen and held-out triples
in turn. final/metrics.json has under `captions` each attribute's share that the
videos show, for both, beside real clips, these through the autoencoder, and
shuffled ones. Variants: `smoke`, the same in minutes; `overfit`.

Expected, on two cores: not measured yet.
"""

from vdm.config import recipes
from vdm.config import schema
from vdm.config import variants
from vdm.data.synthetic import captions


def get_config(variant: str = ''):
  config = schema.default()
  config.data.name = 'synthetic_scenes'
  config.data.scenes.update(train=4096, captions=True)
  config.autoencoder.update(factor=8, channels=8, kl_weight=5e-3)
  config.model.update(recipes.NETWORKS['tiny'])
  config.model.text.update(
    encoder='learned', dropout=0.15, length=24, width=64, vocabulary=128
  )
  config.diffusion.update(density_mean=1.8, density_std=1.3)
  config.optim.update(name='muon', muon_learning_rate=0.01)
  config.sample.update(
    guidance=2.0,
    steps=20,
    ema=0.05,
    num=8,
    final=256,
    batch=32,
    captions=captions.prompts(64),
  )
  config.score.update(every=900, num=32)
  config.train.update(
    order=('autoencoder', 'video'),
    cpu_devices=2,
    log_every=20,
    eval_every=500,
    preview_every=500,
    save_every=500,
  )
  stage = dict(learning_rate=3e-3, warmup=50)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=1500, batch=8, cooldown=1.0, **stage
  )
  config.stages.video = schema.stage(
    steps=2700, frames=16, batch=16, cooldown=0.8, **stage
  )
  if 'smoke' in variant.split(','):
    config.data.scenes.update(train=64, validation=16)
  return variants.apply(config, variant)
