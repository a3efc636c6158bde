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
  config.sample.update(guidance=3.0, steps=24, final=256, batch=64)
  config.stages.autoencoder = config_lib.stage(
    objective='autoencoder',
    steps=2000,
    frames=1,
    batch=8,
    learning_rate=3e-3,
    warmup=50,
    cooldown=1.0,
  )
  config.stages.video = config_lib.stage(
    steps=1400,
    frames=16,
    batch=16,
    learning_rate=3e-3,
    warmup=50,
    cooldown=0.8,
  )
  config.train.update(
    order=('autoencoder', 'video'),
    log_every=20,
    eval_every=350,
    preview_every=350,
    save_every=350,
  )
  if variant == 'smoke':
    config.data.scenes.update(train=64, validation=16)
    config_variants.smoke(config)
  elif variant == 'overfit':
    config_variants.overfit(config)
  elif variant:
    raise ValueError(f'configs/synthetic.py has no variant {variant!r}.')
  return config
