"""An image model of simple shapes is extended to videos, on a CPU.

The scenes of configs/synthetic.py. First a U-Net of Stable Diffusion's family,
small and without words, is trained on single frames, and written as a published
one is:

  bash launch/local.sh --config configs/synthetic_inflate.py:image
  python -m vdm.export --image --workdir runs/synthetic_inflate_image \
      --out weights/scenes

Then it is read again, frozen, and gets temporal branches, which learn the eight
directions from labels that the image model does not know:

  bash launch/local.sh --config configs/synthetic_inflate.py

Four frames, every fourth. With `all` the image model is trained, too, and with
`smoke` both take minutes.

On one thread of a core (AMD EPYC), three seeds of the branches: the image model
2 and 13 minutes next to two other trainings, the branches 17 to 20 next to one,
1.7 GiB. Label agreement 97 to 99 %, residual 0.83 to 0.91 % of the width,
present in 97 to 99 % of the clips; docs/image_models.md has the rest. `all` is
not trained to the end.
"""

import json

from vdm.config import recipes
from vdm.config import variants

VARIANTS = ('image', 'all', 'smoke')

# As in a config.json of diffusers.
UNET = dict(
  in_channels=8,
  out_channels=8,
  block_out_channels=[32, 64],
  down_block_types=['DownBlock2D', 'DownBlock2D'],
  mid_block_type='UNetMidBlock2D',
  up_block_types=['UpBlock2D', 'UpBlock2D'],
  layers_per_block=1,
  norm_num_groups=8,
  prediction_type='v_prediction',
  beta_schedule='linear',
  beta_start=0.0001,
  beta_end=0.02,
)


def get_config(variant: str = ''):
  config = recipes.scenes()
  names = variant.split(',')
  config.model.update(
    kind='conditional',
    temporal_attention_levels=(),
    joint_levels=2,
    label_dropout=0.15,
  )
  config.diffusion.update(
    prediction='v',
    weighting='v',
    # To the ends of its table of betas.
    logsnr_min=-10.0,
    logsnr_max=9.0,
  )
  config.score.every = 0
  if 'image' in names:
    image(config)
  else:
    motion(config, names)
  if 'smoke' in names:
    config.data.scenes.update(train=64, validation=16)
  return variants.apply(config, variant, VARIANTS)


def image(config):
  """Single frames, without labels: one cannot see where a thing moves."""
  config.model.architecture = json.dumps(UNET)
  config.train.order = ('autoencoder', 'image')
  config.stages.image = config.stages.video
  config.stages.image.update(frames=1, batch=64, steps=2000)
  del config.stages.video


def motion(config, names):
  """The branches alone; with `all` everything, for comparison."""
  config.data.stride = 4
  config.diffusion.update(density_mean=1.0, density_std=1.5)
  config.model.num_classes = 8
  config.stages.video.update(frames=4, steps=4000)
  if 'all' not in names:
    config.stages.video.frozen = recipes.IMAGE
  config.train.order = ('video',)
  if 'smoke' in names:  # Of an image model that has learned nothing.
    config.model.architecture = json.dumps(UNET)
    config.autoencoder.kind = 'pca'
    return
  config.model.weights = (
    'weights/scenes/unet/diffusion_pytorch_model.safetensors'
  )
  config.autoencoder.load = 'runs/synthetic_inflate_image'
