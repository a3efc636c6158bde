"""The clips that a stage sees: to train on, to validate on, to be fitted to."""

import jax
import numpy as np

from vdm.data import pipeline


def make_batches(config, source, span, start):
  """A stage's batches on this host, from its step `start` on.

  Args:
    config: the run's.
    source: `builders.ClipSource` of the training split.
    span: the stage.
    start: step of the stage, from 0.
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
    frames=stage.frames,
    stride=data.stride,
    resolution=stage.resolution,
    batch=stage.batch,
    seed=config.seed,
    stage=span.name,
    start=start,
    stop=stage.steps,
    crop=stage.crop,
    zoom=stage.zoom,
    flip=data.flip,
    num_classes=config.model.num_classes,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    threads=data.threads,
    workers=data.workers,
    max_bad=data.max_bad_records,
  )


def fixed_clips(config, source, span, num):
  """The same clips of a split every time, of a stage's shape."""
  return pipeline.fixed_clips(
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
  video, label = batch['video'], batch['label']
  return {
    'video': video.reshape(-1, 1, *video.shape[2:]),
    'label': np.repeat(label, video.shape[1]),
  }
