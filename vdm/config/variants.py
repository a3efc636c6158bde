"""The variants that are the same for every configuration.

`smoke` and `overfit` change sizes and steps only: data, stages and code are
those of the full run. `given` trains the stages of videos to go on from given
frames, too.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from vdm.config import recipes


def apply(
  config: ConfigDict,
  variant: str,
  known: Sequence[str] = ('smoke', 'overfit'),
) -> ConfigDict:
  """Returns `config` after those of its variants that `variant` names.

  Args:
    config: the full run, with the file's own variants; it is changed.
    variant: what follows the colon after the file's name: names and commas.
    known: the variants of the file.

  Raises:
    ValueError: `variant` names one that is not known.
  """
  names = list(filter(None, variant.split(',')))
  for name in names:
    if name not in known:
      raise ValueError(
        f'there is no variant {name!r}, only {", ".join(known)}.'
      )
  if 'given' in names:
    given(config)
  if 'overfit' in names:
    overfit(config)
  if 'smoke' in names:
    smoke(config)
  return config


def smoke(config: ConfigDict) -> None:
  """Runs every stage and writes every output, in minutes on a CPU."""
  on_a_cpu(config)
  config.autoencoder.update(
    encoder_width=16,
    encoder_blocks=1,
    decoder_width=16,
    decoder_blocks=1,
    statistics_clips=8,
  )
  config.model.update(widths=(16, 32), embed_width=32)
  config.model.transformer.update(width=32, depth=2)
  config.sample.update(steps=4, final=8, num=2, batch=4)
  if config.sample.autoguide:
    config.sample.autoguide = 20
  config.score.update(every=20, num=4)
  config.train.update(log_every=10, eval_clips=8)
  for stage in config.stages.values():
    steps = 60 if stage.objective == 'autoencoder' else 40
    stage.update(
      steps=steps, batch=4, accumulate=1, learning_rate=2e-3, warmup=5
    )


def given(config: ConfigDict) -> None:
  """Trains videos from nothing, from given frames, and of longer rollouts.

  Two fifths of the clips stay as they were. As many are continued or completed
  from clean frames or, for half of these, noised ones, as rollouts hold them. A
  fifth has a level for each frame, which history guidance needs.
  """
  for stage in config.stages.values():
    if stage.objective != 'autoencoder' and stage.frames > 1:
      stage.frame_levels.update(
        shared=0.4, context=0.4, independent=0.2, first=0.0
      )
      if stage.objective != 'tokens':  # Which are known or masked.
        stage.context_noise = 0.2


def overfit(config: ConfigDict) -> None:
  """Learns two clips, which any working model can."""
  on_a_cpu(config)
  config.data.update(flip=False, fixed_clips=2, latents='')
  config.autoencoder.update(
    encoder_width=64,
    encoder_blocks=1,
    decoder_width=64,
    decoder_blocks=2,
    statistics_clips=2,
  )
  config.sample.update(steps=32, final=4, num=2, batch=4, autoguide=0)
  config.score.every = 0  # The PSNR to the clips is the score.
  config.train.update(
    log_every=20, eval_every=400, preview_every=400, save_every=400
  )
  # One stage for the autoencoder, and the last one for videos.
  first, last = config.train.order[0], config.train.order[-1]
  config.train.order = (first, last)
  for name in set(config.stages) - {first, last}:
    del config.stages[name]
  frames = config.stages[last].frames
  for stage in config.stages.values():
    is_autoencoder = stage.objective == 'autoencoder'
    stage.update(
      steps=1000 if is_autoencoder else 800,
      frames=frames,  # The autoencoder sees all frames of the clips, too.
      batch=2 if is_autoencoder else 4,
      accumulate=1,
      image_fraction=0.0,
      images='all',
      crop=0,
      zoom=(1.0, 1.0),
      learning_rate=3e-3,
      warmup=50,
      cooldown=0.8,
    )


def on_a_cpu(config: ConfigDict) -> None:
  """Takes the smallest network, float32 and the fastest optimizer."""
  config.model.update(recipes.NETWORKS['tiny'])
  config.optim.update(name='muon', muon_learning_rate=0.01)
  config.train.compute_dtype = 'float32'
  config.data.threads = 2
