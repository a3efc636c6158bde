"""The clips of a stage: to train on, and to validate, preview and measure on.

`pipeline` makes batches in threads and worker processes; `clip_reader` draws
each clip by its number and reads it, frames from a `builders.ClipSource` or
latents from a `latent_cache.Cache`. `windowing` knows which windows there are.
"""

import dataclasses
from typing import Any

import jax
from ml_collections import ConfigDict
import numpy as np

from vdm.common import sizes
from vdm.common import vocabulary
from vdm.data import builders
from vdm.data import clip_reader
from vdm.data import clip_spec
from vdm.data import eval_clips
from vdm.data import latent_cache
from vdm.data import pipeline
from vdm.data import windowing
from vdm.diffusion import conditions
from vdm.models import autoencoders
from vdm.sampling import coders
from vdm.sampling import enlarged
from vdm.training import stages


def make_spec(config: ConfigDict, span: stages.Span) -> clip_spec.ClipSpec:
  """Returns what decides which clips are in a stage's batches."""
  data, stage = config.data, span.stage
  return clip_spec.ClipSpec(
    frames=stage.frames,
    stride=data.stride,
    max_stride=data.max_stride if stage.frames > 1 else 0,
    **sizes.keys(sizes.of(stage)),
    crop=stage.crop,
    zoom=tuple(stage.zoom),
    flip=data.flip,
    batch=stage.batch,
    seed=config.seed,
    stage=span.name,
    scalars=scalars_of(config.model, stage),
    max_bad=data.max_bad_records,
  )


def scalars_of(model: ConfigDict, stage: ConfigDict) -> tuple[str, ...]:
  """Returns the numbers that come with the clips of a stage."""
  told = stage.objective != 'autoencoder' and stage.frames > 1
  return tuple(model.scalars) if told else ()


def check_flip(config: ConfigDict, info: dict[str, Any]) -> None:
  """Checks that mirroring leaves the labels that a run learns correct.

  Args:
    config: the run's.
    info: of the data set, see `builders.read_info`.

  Raises:
    ValueError: it does not.
  """
  stages_run = [config.stages[name] for name in config.train.order]
  learns = any(stage.objective != 'autoencoder' for stage in stages_run)
  names = info['directional_labels']
  if config.data.flip and config.model.num_classes and learns and names:
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    raise ValueError(
      f'config.data.flip=True mirrors clips, and {info["name"]} has labels '
      f'with a direction ({", ".join(names[:3])}{more}): set '
      'config.data.flip=False, or config.model.num_classes=0 to train without '
      'labels. If mirrored clips keep these labels, take them out of '
      'directional_labels in clips.json of the data set.'
    )


def make_batches(
  config: ConfigDict,
  source: builders.ClipSource,
  span: stages.Span,
  start: int,
  autoencoder: str = '',
  texts: vocabulary.Reader | None = None,
) -> pipeline.Batches | pipeline.RepeatedBatches:
  """Returns this process's rows of a stage's batches.

  Args:
    config: the run's.
    source: of the training split.
    span: the stage.
    start: step of the stage at which to start, from 0.
    autoencoder: fingerprint of the one that the stage works in, if any.
    texts: reads the captions, if the run does.

  Raises:
    CacheError: `data.latents` is not of what the stage trains on.
  """
  data, stage = config.data, span.stage
  process = dict(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
  if data.fixed_clips:
    clips = load_eval_clips(config, source, span, data.fixed_clips, texts)
    return pipeline.RepeatedBatches(clips, stage.batch, **process)
  return pipeline.make_batches(
    source,
    make_spec(config, span),
    start=start,
    stop=stage.steps,
    cache=open_cache(config, source, span, autoencoder),
    posterior=config.diffusion.sample_posterior,
    texts=texts,
    threads=data.threads,
    workers=data.workers,
    **process,
  )


def open_cache(
  config: ConfigDict,
  source: builders.ClipSource,
  span: stages.Span,
  autoencoder: str,
) -> latent_cache.Cache | None:
  """Returns the latents that a stage reads in place of frames; None: frames."""
  if not config.data.latents or span.stage.objective == 'autoencoder':
    return None
  spec = make_spec(config, span)
  return latent_cache.open_cache(config.data.latents, source, spec, autoencoder)


def name_clips(
  config: ConfigDict, source: builders.ClipSource, span: stages.Span, n: int
) -> list[dict[str, Any]]:
  """Returns the clips of a stage's global batch n, row by row.

  Returns:
    [{'id', 'start'}]: the record in which a clip starts, at which frame of it.
  """
  spec, fixed = make_spec(config, span), config.data.fixed_clips
  if not fixed:
    windows = windowing.find_windows(source, spec)
    clips = clip_reader.TrainingClips(source, windows)
    return [clips.name(n * spec.batch + row) for row in range(spec.batch)]
  clips = load_eval_clips(config, source, span, fixed)
  ids = dict(zip(source.index['row'].tolist(), source.index['id'].tolist()))
  rows = np.arange(spec.batch) % len(clips['row'])
  return [
    {'id': str(ids[clips['row'][i]]), 'start': int(clips['start'][i])}
    for i in rows
  ]


def load_eval_clips(
  config: ConfigDict,
  source: builders.ClipSource,
  span: stages.Span,
  num: int,
  texts: vocabulary.Reader | None = None,
) -> dict[str, np.ndarray]:
  """Returns the same clips of a split every time, of a stage's shape."""
  return eval_clips.load_clips(
    source, make_spec(config, span), num, texts=texts
  )


def held_out_clips(
  config: ConfigDict,
  sources: dict[str, builders.ClipSource],
  span: stages.Span,
  num: int,
  texts: vocabulary.Reader | None = None,
  frames: int = 0,
) -> dict[str, np.ndarray]:
  """Returns clips to validate on; the training clips where those are fixed.

  Args:
    config: the run's.
    sources: by split.
    span: the stage.
    num: number of clips; fewer where there are no more.
    texts: reads their captions, if the run does.
    frames: of a clip; 0: those of the stage.

  Returns:
    See `eval_clips.load_clips`; where the stage enlarges smaller videos, also
    those of the clips. {} where no shot has that many `frames`.
  """
  fixed = config.data.fixed_clips
  source = sources['train' if fixed else 'validation']
  spec = make_spec(config, span)
  if frames:
    spec = dataclasses.replace(spec, frames=frames, max_stride=0)
    if windowing.longest_shot(source) < spec.span():
      return {}
  clips = eval_clips.load_clips(source, spec, fixed or num, texts=texts)
  if span.stage.objective == 'autoencoder':
    return clips
  return enlarged.with_small(config.model, clips)


def abstract_batch(
  config: ConfigDict, span: stages.Span, *, single: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes and dtypes of a stage's global batch.

  Args:
    config: the run's.
    span: the stage.
    single: of a step on the clips' single frames.
  """
  stage, size = span.stage, make_spec(config, span).size
  shape, names, dtype = (stage.frames, *size, 3), ('video',), np.uint8
  if config.data.latents and stage.objective != 'autoencoder':
    codec = autoencoders.make_autoencoder(config.autoencoder)
    shape = coders.latent_shape(codec, stage.frames, size)
    names = (
      ('mean', 'logvar') if config.diffusion.sample_posterior else ('mean',)
    )
    dtype = np.float16
  rows, (frames, *rest) = stage.batch, shape
  if single:
    rows, frames = rows * (1 if stage.images == 'first' else frames), 1
  arrays = dict.fromkeys(names, ((rows, frames, *rest), dtype))
  arrays['label'] = ((rows,), np.int32)
  text = config.model.text
  if text.encoder == 'learned':
    arrays['words'] = ((rows, text.length), np.int32)
  elif text.encoder == 'pretrained':
    arrays['text'] = ((rows, text.length, text.features), np.float32)
    arrays['text_mask'] = ((rows, text.length), np.bool_)
  for name in scalars_of(config.model, stage):
    arrays[name] = ((rows,), np.float32)
  return {name: jax.ShapeDtypeStruct(*array) for name, array in arrays.items()}


def as_single_frames(
  batch: dict[str, Any], images: str = 'all'
) -> dict[str, Any]:
  """Returns clips [b t ...] as clips of one frame.

  Args:
    batch: of clips.
    images: 'all' makes b t clips. 'first' makes b of the first frames: what a
      clip begins with need not look like what it ends with, and
      `sample.image_first` begins with it.
  """
  frames = conditions.rest(batch)
  if images == 'first':
    frames = {k: v[:, :1] for k, v in frames.items()}
  length = next(iter(frames.values())).shape[1]
  return {
    **{k: v.reshape(-1, 1, *v.shape[2:]) for k, v in frames.items()},
    **{
      k: np.repeat(v, length, axis=0) for k, v in conditions.of(batch).items()
    },
  }
