"""The clips that a stage sees: to train on, to validate on, to be fitted to."""

import jax
import numpy as np

from vdm.data import eval_clips
from vdm.data import latent_cache as latents
from vdm.data import pipeline
from vdm.data import training_clips


def make_batches(config, source, span, start, autoencoder=''):
  """A stage's batches on this host, from its step `start` on.

  Args:
    config: the run's.
    source: `builders.ClipSource` of the training split.
    span: the stage.
    start: step of the stage, from 0.
    autoencoder: fingerprint of the one that the stage works in, if any.

  Raises:
    latents.CacheError: `data.latents` is not of what the stage trains on.
  """
  data, stage = config.data, span.stage
  if data.fixed_clips:
    return pipeline.Repeated(
      fixed_clips(config, source, span, data.fixed_clips),
      stage.batch,
      jax.process_index(),
      jax.process_count(),
    )
  return pipeline.make_batches(
    source,
    **_which(config, span),
    start=start,
    stop=stage.steps,
    num_classes=config.model.num_classes,
    cache=latent_cache(config, source, stage, autoencoder),
    posterior=config.diffusion.sample_posterior,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    threads=data.threads,
    workers=data.workers,
  )


def _which(config, span):
  """What decides which clips are in a stage's batches."""
  data, stage = config.data, span.stage
  return dict(
    frames=stage.frames,
    stride=data.stride,
    resolution=stage.resolution,
    batch=stage.batch,
    seed=config.seed,
    stage=span.name,
    crop=stage.crop,
    zoom=stage.zoom,
    flip=data.flip,
    max_bad=data.max_bad_records,
  )


def latent_cache(config, source, stage, autoencoder):
  """The latents that a stage takes in place of frames, None for frames."""
  if not config.data.latents or stage.objective == 'autoencoder':
    return None
  return latents.open_cache(
    config.data.latents,
    source,
    autoencoder=autoencoder,
    resolution=stage.resolution,
    whole_frames=not stage.crop and tuple(stage.zoom) == (1.0, 1.0),
    flip=config.data.flip,
  )


def names(config, source, span, n):
  """The clips of a stage's global batch n: [{'id', 'start'}], row by row.

  `id` is the record in which a clip begins, `start` at which frame of it.
  """
  fixed = config.data.fixed_clips
  if not fixed:
    return training_clips.name_clips(source, n=n, **_which(config, span))
  clips = fixed_clips(config, source, span, fixed)
  ids = dict(zip(source.index['row'].tolist(), source.index['id'].tolist()))
  rows = range(span.stage.batch)
  return [
    {'id': str(ids[clips['row'][i]]), 'start': int(clips['start'][i])}
    for i in (row % len(clips['row']) for row in rows)
  ]


def fixed_clips(config, source, span, num):
  """The same clips of a split every time, of a stage's shape."""
  return eval_clips.fixed_clips(
    source,
    num=num,
    frames=span.stage.frames,
    stride=config.data.stride,
    resolution=span.stage.resolution,
    max_bad=config.data.max_bad_records,
  )


def held_out_clips(config, sources, span, num):
  """Clips to validate on; the training clips where those are fixed.

  Args:
    config: the run's.
    sources: {split: `builders.ClipSource`}.
    span: the stage.
    num: of the clips; fewer where there are no more.
  """
  if config.data.fixed_clips:
    num = config.data.fixed_clips
    return fixed_clips(config, sources['train'], span, num)
  return fixed_clips(config, sources['validation'], span, num)


def as_single_frames(batch):
  """Clips [b, t, ...] as b t clips of one frame."""
  label = batch['label']
  frames = {k: v for k, v in batch.items() if k != 'label'}
  length = next(iter(frames.values())).shape[1]
  return {
    **{k: v.reshape(-1, 1, *v.shape[2:]) for k, v in frames.items()},
    'label': np.repeat(label, length),
  }
