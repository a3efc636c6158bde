"""A cascade on simple moving shapes, on a CPU: few frames, then all, larger.

The scenes of configs/synthetic.py, stored at 128 px. Three models, a run each
(docs/cascade.md):

  (none)    4 key frames of 64x64, every fourth one, from nothing
  frames    16 frames of 64x64 from these 4 (frame interpolation)
  enlarge   16 frames of 128x128 from those of 64x64 (super-resolution)

  bash launch/local.sh --config configs/synthetic_cascade.py
  bash launch/local.sh --config configs/synthetic_cascade.py:frames
  bash launch/local.sh --config configs/synthetic_cascade.py:enlarge

and then all of them at once:

  R=runs/synthetic_cascade
  python -m vdm.sample --chain $R,${R}_frames,${R}_enlarge --label up-right

Each with `smoke` is the same in minutes, and with `crossing` of two objects, of
which one hides the other on the way. On one thread of a core (AMD EPYC, one
seed), with another training or tests on the other: 1 minute for the first one's
autoencoder and 96 for its video stage, 2.8 GiB; 1 and 75 for `frames`, 2.6 GiB;
17 for `enlarge`, 2.4 GiB. 16 frames from nothing, three seeds: 80, 68 and 71 %
keep their shape, from real key frames all; label agreement 98 to 100 %, tremble
0.13 px. `frames,crossing` with 1 400 steps, 24 minutes: of real key frames all
cross and come out unswapped; from nothing it fails. `enlarge`: 44.2 dB where
unsharp masking has 37.5. The rest is in docs/cascade.md.
"""

from vdm.config import recipes
from vdm.config import variants

VARIANTS = ('frames', 'enlarge', 'crossing', 'smoke')


def get_config(variant: str = ''):
  config = recipes.scenes()
  names = variant.split(',')
  config.data.resolution = 128
  config.model.update(num_classes=8, label_dropout=0.15)
  if 'frames' in names:
    frames(config)
  elif 'enlarge' in names:
    recipes.enlarging(config)
  else:
    key_frames(config)
  if 'crossing' in names:
    crossing(config)
  if 'smoke' in names:
    config.data.scenes.update(train=64, validation=16)
  return variants.apply(config, variant, VARIANTS)


def key_frames(config):
  """A quarter of the frames costs a quarter, and is what has to be chosen."""
  fine(config)
  recipes.joint(config)
  config.model.blocks = (1, 2, 1)
  config.data.stride = 4
  # By the label alone, and without noise in every step, fewer shapes stay what
  # they are.
  config.sample.update(autoguide=400, eta=1.0, steps=40, guidance=1.5)
  config.stages.video.update(frames=4, steps=4200)


def frames(config):
  """Four times the frames: a quarter of them is known, up to noise."""
  fine(config)
  config.model.low.time_factor = 4
  config.diffusion.update(density_mean=1.0, density_std=1.5)
  # What is known leaves little to choose: few steps, and no guidance.
  config.sample.update(steps=10, guidance=1.0, low_noise=0.1, final=64)
  config.stages.video.update(batch=8, steps=3200)


def fine(config):
  """Latents of 4 px: an outline is where its edges are, no code of a place."""
  config.autoencoder.update(
    factor=4, channels=4, encoder_width=32, decoder_width=64, decoder_blocks=1
  )
  config.model.update(recipes.NETWORKS['fine'])
  config.stages.autoencoder.steps = 1000
  config.score.every = 0  # It takes minutes.
  config.train.update(eval_every=1000, preview_every=1000)


def crossing(config):
  """Two objects, one of which hides the other; they have no label."""
  config.data.scenes.update(objects=2, crossings=True)
  config.model.update(num_classes=0, label_dropout=0.0)
