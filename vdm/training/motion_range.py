"""How much moves in the clips of a run: the range that samples may ask for.

It is measured once, before the first step, and stands in the run's config.json
from then on.
"""

import dataclasses
import json

from absl import logging
from ml_collections import ConfigDict
import numpy as np

from vdm.common import errors
from vdm.data import builders
from vdm.data import clip_reader
from vdm.data import windowing
from vdm.multihost import coordination
from vdm.training import inputs
from vdm.training import stages

CLIPS = 256  # Of the last stage of videos, measured.


def resolve(
  config: ConfigDict, begun: ConfigDict | None, source: builders.ClipSource
) -> tuple[float, float]:
  """Returns `config.model.motion_range`, measured where it is (0, 0).

  A run keeps the range that it began with. All processes call it; the first
  one measures.

  Args:
    config: the run's.
    begun: what it has begun with; None if it has not.
    source: of the training split.

  Raises:
    UsageError: nothing moves in the clips.
  """
  given = tuple(config.model.motion_range)
  if not _spans(config) or given[1] > 0:
    return given
  if begun is not None and begun.model.motion_range[1] > 0:
    return tuple(begun.model.motion_range)
  found = measure(config, source) if coordination.is_first() else given
  found = coordination.gather('the range of motion', json.dumps(found))[0]
  low, high = json.loads(found)
  if not high:
    raise errors.UsageError(
      'config.model.scalars has motion, and nothing moves in the clips: leave '
      'it out.'
    )
  logging.info(
    'Motion of the clips: %g to %g frame widths a second.', low, high
  )
  return low, high


def measure(
  config: ConfigDict, source: builders.ClipSource
) -> tuple[float, float]:
  """Returns the least and the greatest motion of training clips.

  Runs of any seed measure the same clips.
  """
  span, fixed = _spans(config)[-1], config.data.fixed_clips
  if fixed:
    motion = inputs.load_eval_clips(config, source, span, fixed)['motion']
  else:
    spec = dataclasses.replace(inputs.make_spec(config, span), seed=0)
    windows = windowing.find_windows(source, spec)
    clips = clip_reader.TrainingClips(source, windows)
    motion = [clips.read(i).arrays['motion'] for i in range(CLIPS)]
  low, high = np.min(motion), np.max(motion)
  return float(f'{low:.3g}'), float(f'{high:.3g}')


def _spans(config: ConfigDict) -> list[stages.Span]:
  """Returns the stages whose clips come with their motion."""
  return [
    span
    for span in stages.spans(config)
    if 'motion' in inputs.scalars_of(config.model, span.stage)
  ]
