"""A run of three stages and 20 steps in seconds, with all that a run does.

`--config tests/faults/tiny.py`: an autoencoder, images, then videos with some
steps on single frames; every stage ends with an evaluation, samples and a
checkpoint, and has some of each before.
"""

from vdm.config import schema

SAVE_EVERY = 3


def get_config():
  """Returns the run's configuration."""
  config = schema.default()
  config.data.update(resolution=16, threads=1)
  config.data.scenes.update(train=24, validation=8, frames=4)
  config.autoencoder.update(
    factor=4, channels=4, decoder_width=8, encoder_width=8, statistics_clips=8
  )
  config.model.update(
    widths=(8,),
    blocks=(1,),
    attention_levels=(),
    temporal_levels=(0,),
    temporal_attention_levels=(),
    joint_attention=False,
    head_size=8,
    embed_width=8,
    num_classes=8,
    dropout=0.1,
  )
  config.sample.update(steps=2, num=4, batch=4, final=16)
  config.diffusion.eval_levels = (-3.0, 3.0)
  config.score.every = 0
  config.train.update(
    order=('autoencoder', 'image', 'video'),
    log_every=1,
    eval_every=4,
    eval_clips=8,
    preview_every=5,
    save_every=SAVE_EVERY,
    keep=2,
    tensorboard=False,
  )
  stage = dict(resolution=16, batch=8, warmup=1, learning_rate=1e-2)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=5, **stage
  )
  config.stages.image = schema.stage(steps=4, **stage)
  config.stages.video = schema.stage(
    steps=11, frames=4, image_fraction=0.3, **stage
  )
  return config
