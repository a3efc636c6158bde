"""Masked tokens on simple moving shapes, on a CPU.

TODO
"""

from vdm.config import recipes
from vdm.config import variants

VARIANTS = ('given', 'smoke', 'overfit')


def get_config(variant: str = ''):
  config = recipes.scenes()
  config.autoencoder.update(
    bottleneck='fsq', levels=(8, 8, 8, 5, 5, 5), channels=6
  )
  config.model.update(kind='transformer', num_classes=8, label_dropout=0.15)
  config.stages.video.update(objective='tokens')
  if 'smoke' in variant.split(','):
    config.data.scenes.update(train=64, validation=16)
  return variants.apply(config, variant, VARIANTS)
