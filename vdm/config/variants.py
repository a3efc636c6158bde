"""What `:smoke` and `:overfit` mean, whatever the configuration.

Both change sizes and steps alone: data, stages and code are those of the run
they stand in for.
"""

from vdm.config import schema


def smoke(config):
  """Every stage and every output, in minutes on a CPU."""
  on_a_cpu(config)
  config.autoencoder.update(
    encoder_width=16,
    encoder_blocks=1,
    decoder_width=16,
    decoder_blocks=1,
    statistics_clips=8,
  )
  config.model.update(widths=(16, 32), embed_width=32)
  config.sample.update(steps=4, final=8, num=2, batch=4)
  config.score.update(every=20, num=4)
  config.train.update(log_every=10, eval_clips=8)
  for stage in config.stages.values():
    own = stage.objective == 'autoencoder'
    stage.update(steps=60 if own else 40, batch=4, learning_rate=2e-3)
    stage.warmup = 5


def overfit(config):
  """Learns two clips: what a model must be able to do before all else."""
  on_a_cpu(config)
  config.data.update(flip=False, fixed_clips=2, latents='')
  config.autoencoder.update(
    encoder_width=64,
    encoder_blocks=1,
    decoder_width=64,
    decoder_blocks=2,
    statistics_clips=2,
  )
  config.sample.update(steps=32, final=4, num=2, batch=4)
  config.score.every = 0  # The PSNR to the clips says it all.
  config.train.update(
    log_every=20, eval_every=400, preview_every=400, save_every=400
  )
  # One stage for the autoencoder and the last one, for videos.
  config.train.order = (config.train.order[0], config.train.order[-1])
  for name in list(config.stages):
    if name not in config.train.order:
      del config.stages[name]
  frames = config.stages[config.train.order[-1]].frames
  for stage in config.stages.values():
    own = stage.objective == 'autoencoder'
    stage.update(
      steps=1000 if own else 800,
      frames=frames,  # The autoencoder, too, sees all frames of the clips.
      batch=2 if own else 4,
      accumulate=1,
      image_fraction=0.0,
      crop=0,
      zoom=(1.0, 1.0),
      learning_rate=3e-3,
      warmup=50,
      cooldown=0.8,
    )


def on_a_cpu(config):
  """The smallest network, in float32, with the optimizer that is quickest."""
  config.model.update(schema.PRESETS['tiny'])
  config.optim.update(name='muon', muon_learning_rate=0.01)
  config.train.compute_dtype = 'float32'
  config.data.threads = 2
