"""Scores a network that enlarges on small versions of clips: truth is known."""

from typing import Any

from absl import logging
from etils import epath
from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm.common import tables
from vdm.config import cascade_rules
from vdm.diffusion import cascade
from vdm.evaluation import given_score
from vdm.metrics import enlargement

SHOWN = 8


def measure(
  config: ConfigDict,
  videos: ui8['n t h w 3'],
  clips: dict[str, np.ndarray],
  reconstruction: ui8['n t h w 3'] | None = None,
) -> dict[str, Any]:
  """Compares videos with the clips whose small versions they were made of.

  Args:
    config: the run's.
    videos: video i was made of clip i modulo their number, each clip first
      once: these are measured.
    clips: with 'video' and 'small'.
    reconstruction: the clips through the autoencoder, which no network exceeds.

  Returns:
    {'clips': number, 'sets': {set: see `enlargement.measure`}}; {} for networks
    that do not enlarge.
  """
  if not cascade_rules.is_told(config.model):
    return {}
  factors = config.model.low.space_factor, config.model.low.time_factor
  count = min(len(videos), len(clips['video']))
  truth, small = clips['video'][:count], clips[cascade.SMALL][:count]
  sets = {'model': videos[:count], **enlargement.rules(small, *factors)}
  if 'sharpened' in sets:
    # The best rule there is here, which is helped as the network's videos are.
    sets['agreeing'] = np.asarray(
      cascade.consistent(sets['sharpened'], small, factors[0])
    )
  if reconstruction is not None:
    sets['autoencoder'] = reconstruction[:count]
  found = enlargement.measure(sets, truth, *factors)
  shown = tables.by_set(found, enlargement.TITLES)
  logging.info('Enlargement of %d clips:\n%s', count, shown)
  return {'clips': count, 'sets': found}


def write_videos(
  path: epath.Path,
  config: ConfigDict,
  videos: ui8['n t h w 3'],
  clips: dict[str, np.ndarray],
  frame_rate: float,
) -> None:
  """Writes an mp4 and a GIF: clips, what a rule makes of small ones, samples.

  Args:
    path: of both files, without suffix.
    config: the run's.
    videos: see `measure`.
    clips: likewise.
    frame_rate: of the clips, frames a second.
  """
  low, count = config.model.low, min(SHOWN, len(videos), len(clips['video']))
  made = enlargement.rules(
    clips[cascade.SMALL][:count], low.space_factor, low.time_factor
  )
  name = list(made)[-1]
  rows = {'real': clips['video'][:count], name: made[name]}
  given_score.write_rows(path, rows | {'samples': videos[:count]}, frame_rate)
