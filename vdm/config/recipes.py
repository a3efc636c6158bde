"""What several files in configs/ share: sizes of networks, and recipes."""

from ml_collections import ConfigDict

from vdm.config import schema

# What a stage freezes to keep a trained image model while it learns motion:
# kernels and norms over space. Embeddings, conditioning (`film`) and temporal
# branches stay trainable.
SPATIAL = (
  r'^(stem|head_norm|head_conv)/',
  r'_resample/',
  r'/spatial/((norm|conv)_(in|out)|skip)/(kernel|scale|bias)$',
  r'/attention/(norm|attention)/',
)

# What a stage freezes to keep all of a published image model.
IMAGE = ('^image/',)

# Values of `config.model` by size. Parameters are for latents of 8 channels and
# 101 classes. Widths for accelerators are multiples of 128: a TPU pads to that.
NETWORKS = {
  'tiny': dict(  # 0.8 M, for a CPU.
    widths=(32, 64),
    blocks=(1, 1),
    attention_levels=(1,),
    temporal_levels=(0, 1),
    temporal_attention_levels=(1,),
    head_size=32,
    embed_width=128,
  ),
  'fine': dict(  # 1.7 M, for a CPU and latents of 4 px.
    widths=(32, 48, 96),
    blocks=(1, 1, 1),
    attention_levels=(2,),
    temporal_levels=(0, 1, 2),
    temporal_attention_levels=(1, 2),
    resample='linear',
    head_size=32,
    embed_width=128,
  ),
  'small': dict(  # 21 M.
    widths=(128, 256),
    blocks=(2, 2),
    attention_levels=(1,),
    temporal_levels=(0, 1),
    temporal_attention_levels=(1,),
    head_size=64,
    embed_width=512,
  ),
  'base': dict(  # 110 M, for UCF101.
    widths=(256, 384, 512),
    blocks=(2, 2, 2),
    attention_levels=(1, 2),
    temporal_levels=(0, 1, 2),
    temporal_attention_levels=(1, 2),
    head_size=64,
    embed_width=768,
  ),
  'large': dict(  # 287 M.
    widths=(256, 512, 768),
    blocks=(2, 2, 3),
    attention_levels=(1, 2),
    temporal_levels=(0, 1, 2),
    temporal_attention_levels=(1, 2),
    head_size=64,
    embed_width=1280,
  ),
}


def on_an_accelerator(*, every: int) -> ConfigDict:
  """Returns a run in bfloat16 with a large autoencoder and without stages.

  Args:
    every: steps between checkpoints, previews and validation losses.
  """
  config = schema.default()
  config.data.threads = 8
  config.autoencoder.update(
    encoder_width=128, encoder_blocks=2, decoder_width=256, decoder_blocks=4
  )
  config.train.update(
    compute_dtype='bfloat16',
    log_every=50,
    eval_every=every,
    preview_every=every,
    save_every=every,
  )
  return config


def scenes() -> ConfigDict:
  """Returns a run on synthetic scenes, for a CPU, that is told nothing.

  Its stages are `autoencoder` and `video`.
  """
  config = schema.default()
  config.data.name = 'synthetic_scenes'
  config.autoencoder.update(factor=8, channels=8, kl_weight=5e-3)
  config.model.update(NETWORKS['tiny'])
  config.diffusion.update(density_mean=1.8, density_std=1.3)
  config.optim.update(name='muon', muon_learning_rate=0.01)
  config.sample.update(
    guidance=2.0, steps=20, ema=0.05, num=8, final=256, batch=32
  )
  # As many as `sample.batch`: the last samples need not compile again.
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
    steps=1800, frames=16, batch=16, cooldown=0.8, **stage
  )
  return config


def joint(config: ConfigDict) -> None:
  """Lets every block attend over (t h w), so that outlines reach all frames.

  Args:
    config: of `scenes`, changed in place.
  """
  config.model.update(
    blocks=(2, 1),
    attention_levels=(),
    temporal_attention_levels=(),
    joint_levels=2,
    resample='linear',
  )
  config.diffusion.update(density_mean=1.0, density_std=1.5)


def enlarging(config: ConfigDict) -> None:
  """Makes a run double height and width of videos of 64 px, in pixels.

  Args:
    config: of `scenes`, of any data set of 128 px; it is changed in place.
  """
  # All of each 4 x 4 pixels: an autoencoder would lose more than there is to
  # gain.
  config.autoencoder.update(kind='pca', factor=4, channels=48)
  config.model.low.update(space_factor=2, residual=True, noise=(0.0, 0.2))
  # Local, so that crops are enough to train on.
  config.model.update(attention_levels=(), joint_attention=False)
  # One step makes the mean of all that may be missing, which errs least. More
  # of them choose, and such a network's choices are grain.
  config.sample.update(steps=1, guidance=1.0, low_noise=0.02, final=64)
  config.train.order = ('video',)
  config.stages.video.update(resolution=128, crop=32, steps=1500)


def four_stages(
  *,
  network: str,
  resolution: int = 64,
  width: int = 0,
  frames: int = 16,
  steps: dict[str, int],
  batch: dict[str, int],
  accumulate: dict[str, int] | None = None,
  learning_rate: float,
  warmup: int,
  every: int,
) -> ConfigDict:
  """Returns a run that learns images before videos.

  Its stages are `autoencoder`; `image`, the network on single frames; `motion`,
  its temporal branches on top of frozen spatial kernels; and `video`, all of
  it, with single frames in a fifth of the steps.

  Args:
    network: a size, see `NETWORKS`.
    resolution: height of the data and of every stage, px.
    width: likewise; 0: as high.
    frames: of a clip in the last two stages.
    steps: of the stages, by name.
    batch: clips per step of the stages, by name.
    accumulate: parts in which a batch is processed, of stages with several.
    learning_rate: peak of all stages but the autoencoder, which has 1e-3.
    warmup: steps up to the peak.
    every: steps between checkpoints, previews and validation losses.
  """
  config = on_an_accelerator(every=every)
  config.data.update(resolution=resolution, width=width)
  config.model.update(NETWORKS[network])
  config.diffusion.update(density_mean=0.8, density_std=1.4)
  stages = dict(
    autoencoder=dict(objective='autoencoder', learning_rate=1e-3),
    image=dict(),
    motion=dict(frames=frames, frozen=SPATIAL, cooldown=0.0),
    video=dict(frames=frames, image_fraction=0.2),
  )
  config.train.order = tuple(stages)
  for name, own in stages.items():
    config.stages[name] = schema.stage(
      resolution=resolution,
      width=width,
      steps=steps[name],
      batch=batch[name],
      accumulate=(accumulate or {}).get(name, 1),
      **dict(learning_rate=learning_rate, warmup=warmup) | own,
    )
  return config
