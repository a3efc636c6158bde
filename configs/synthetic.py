"""Latent video diffusion on simple moving shapes, on a CPU in 20 minutes.

One disc, square or triangle of random size, saturated colour, speed and start
moves in one of eight directions, and the label says in which: 16 frames of
64x64, built on first use. Everything about a result can be checked, because
the truth of every clip is known.

  bash launch/local.sh --config configs/synthetic.py

The stages are the recipe of larger runs in small: an autoencoder, then the
denoiser of its latents. `:smoke` is the same in a minute, `:overfit` learns
one batch.
"""

from vdm import config as config_lib
from vdm import config_variants


def get_config(variant=''):
  config = config_lib.default()
  config.data.name = 'synthetic_scenes'
  config.autoencoder.update(factor=8, channels=8, kl_weight=5e-3)
  config.model.update(widths=(32, 64), num_classes=8, label_dropout=0.15)
  config.diffusion.update(density_mean=1.8, density_std=1.3)
  config.optim.update(name='muon', muon_learning_rate=0.01)
  config.sample.update(
    guidance=2.5, steps=20, ema=0.05, num=8, final=256, batch=32
  )
  config.train.update(
    order=('autoencoder', 'image', 'motion', 'video'),
    log_every=20,
    eval_every=400,
    preview_every=400,
    save_every=400,
  )
  stage = dict(learning_rate=3e-3, warmup=50)
  config.stages.autoencoder = config_lib.stage(
    objective='autoencoder', steps=1500, batch=8, cooldown=1.0, **stage
  )
  config.stages.image = config_lib.stage(
    steps=300, batch=128, cooldown=0.5, **stage
  )
  # Time is learned first, on top of the images' kernels.
  config.stages.motion = config_lib.stage(
    steps=100,
    frames=16,
    batch=16,
    frozen=config_lib.SPATIAL,
    cooldown=0.0,
    **stage,
  )
  config.stages.video = config_lib.stage(
    steps=1050, frames=16, batch=16, cooldown=0.8, **stage
  )
  if variant == 'smoke':
    config.data.scenes.update(train=64, validation=16)
    config_variants.smoke(config)
  elif variant == 'overfit':
    config_variants.overfit(config)
  elif variant:
    raise ValueError(f'configs/synthetic.py has no variant {variant!r}.')
  return config
