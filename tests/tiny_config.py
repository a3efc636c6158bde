"""The configuration of a run of four stages that takes seconds.

Nothing is imported that training imports: programs that stand in for it start
at once.
"""

from vdm.config import recipes
from vdm.config import schema


def make_config(root):
  """Four stages of a few steps on scenes of 16 px."""
  config = schema.default()
  config.data.update(root=str(root), resolution=16, threads=1)
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
    head_size=8,
    embed_width=8,
    num_classes=8,
  )
  config.sample.update(steps=2, num=2, batch=8, final=8)
  config.score.update(every=2, num=4, best='motion')
  config.train.update(
    order=('autoencoder', 'image', 'motion', 'video'),
    log_every=1,
    eval_every=100,
    eval_clips=4,
    preview_every=100,
    save_every=100,
    snapshot_every=2,
    tensorboard=False,
  )
  stage = dict(resolution=16, batch=8, warmup=1, learning_rate=1e-2)
  config.stages.autoencoder = schema.stage(
    objective='autoencoder', steps=3, crop=8, **stage
  )
  config.stages.image = schema.stage(steps=2, **stage)
  # One level without attention: two of the patterns would fit nothing.
  config.stages.motion = schema.stage(
    steps=2, frames=4, frozen=recipes.SPATIAL[::2], **stage
  )
  config.stages.video = schema.stage(
    steps=5,
    frames=4,
    image_fraction=0.4,
    frame_levels=dict(shared=0.4, context=0.3, independent=0.3),
    context_noise=0.2,
    **stage,
  )
  return config
