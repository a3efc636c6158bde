"""Scores clips of synthetic scenes, whose laws are known."""

from collections.abc import Sequence
import functools
from typing import Any

from absl import logging
from etils.array_types import IntArray, ui8
from ml_collections import ConfigDict
import numpy as np

from vdm.common import sizes
from vdm.data.synthetic import paths
from vdm.evaluation import caption_score
from vdm.metrics import corruptions
from vdm.metrics import laws
from vdm.metrics import synthetic_truth


def is_synthetic(data: ConfigDict) -> bool:
  """Returns whether the clips are synthetic scenes."""
  return data.name == 'synthetic_scenes'


def is_straight(data: ConfigDict) -> bool:
  """Returns whether they show one straight mover, with more known truth."""
  return (
    is_synthetic(data)
    and data.scenes.objects == 1
    and data.scenes.motion == 'straight'
    and not data.scenes.walls
  )


def world(data: ConfigDict, stage: ConfigDict) -> laws.World:
  """Returns the laws of the scenes, in the frames and pixels of the clips."""
  options = data.scenes
  gravity = 0.0
  if options.motion == 'gravity':
    gravity = paths.gravity(
      sizes.of(stage),
      frames=options.frames,
      walls=options.walls,
      crossings=options.crossings,
    )
  return laws.World(
    options.objects,
    gravity * data.stride**2,
    options.walls,
    options.rotation,
    options.crossings,
  )


def known_laws(data: ConfigDict, stage: ConfigDict) -> dict[str, Any]:
  """Returns 'world' and 'straight', as `clip_set.describe` takes them."""
  known = world(data, stage) if is_synthetic(data) else None
  return {'world': known, 'straight': is_straight(data)}


def score(
  data: ConfigDict,
  stage: ConfigDict,
  samples: ui8['n t h w 3'],
  labels: IntArray[' n'],
  real: dict[str, np.ndarray],
  reconstruction: ui8['m t h w 3'],
  prompts: Sequence[str] = (),
) -> dict[str, dict[str, dict[str, float]]]:
  """Compares samples with the laws of their scenes, and logs a table.

  Real, reconstructed and corrupted clips are measured in the same way.

  Args:
    data: `config.data`.
    stage: config of the stage that the clips are of.
    samples: generated clips.
    labels: their classes.
    real: 'video' and 'label' of held-out clips; with prompts also 'caption'.
    reconstruction: these clips, encoded and decoded.
    prompts: captions of the samples, if they were made for any.

  Returns:
    {'laws' and, of one straight mover, 'synthetic_truth': {set: numbers}}, and
    with prompts 'captions': {set: see `caption_score`}; {} for other data sets.
  """
  if not is_synthetic(data):
    return {}
  known = functools.partial(laws.measure, world=world(data, stage))
  metrics = {'laws': (laws, known)}
  if is_straight(data):
    metrics['synthetic_truth'] = synthetic_truth, synthetic_truth.measure
  video = real['video']
  sets = {
    'samples': samples,
    'real': video,
    'reconstruction': reconstruction,
    'shuffled': corruptions.shuffle_frames(video, seed=0),
    'mixed': corruptions.mix_clips(video, seed=0),
  }
  classes = dict.fromkeys(sets, real['label']) | {'samples': labels}
  scores, found = {}, {}
  for name, (metric, measure) in metrics.items():
    measured = {key: measure(clips) for key, clips in sets.items()}
    found[name] = measured
    scores[name] = {
      key: metric.summarise(measured[key], classes[key], measured['real'])
      for key in sets
    }
    logging.info('\n%s', metric.table(scores[name]))
  if prompts and 'synthetic_truth' in found:
    told = dict.fromkeys(sets, real['caption']) | {'samples': prompts}
    scores['captions'] = {
      key: caption_score.summarise(
        caption_score.shown(
          found['synthetic_truth'][key],
          found['laws'][key],
          min(video.shape[2:4]),
        ),
        told[key],
      )
      for key in sets
    }
    logging.info('\n%s', caption_score.table(scores['captions']))
  return scores
