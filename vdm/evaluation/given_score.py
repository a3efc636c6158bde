"""Scores a run on clips of which it is given some frames: the truth is known.

Held-out clips are continued and completed several times each and compared with
what really follows, beside rules that know nothing of the world (see
`metrics.prediction`) and beside the autoencoder, which no network exceeds.
Where the data set has shots that are long enough, clips are also rolled out to
several times the length that the network knows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm.common import tables
from vdm.config import cascade_rules
from vdm.diffusion import conditions
from vdm.diffusion import rollouts
from vdm.evaluation import given_object
from vdm.evaluation import synthetic_score
from vdm.media import video_files
from vdm.metrics import laws
from vdm.metrics import prediction
from vdm.sampling import task_plan

CLIPS, TRIES = 16, 4
SHOWN = 8
ROLLOUT = 'rollout'
TIMES = 4  # Frames of a rollout over those of the stage's clips.
TITLES = {
  'psnr': ('PSNR, dB', 1),
  'psnr_best': (f'PSNR, best of {TRIES}, dB', 1),
  'ssim': ('SSIM', 1),
  'ssim_best': (f'SSIM, best of {TRIES}', 1),
  **given_object.TITLES,
}


class Made(NamedTuple):
  """What was made for a task.

  Attributes:
    given: indices of the given frames.
    videos: k of each clip.
    truth: the clips.
    reconstruction: they, through the autoencoder.
  """

  given: Sequence[int]
  videos: ui8['k n t h w 3']
  truth: ui8['n t h w 3']
  reconstruction: ui8['n t h w 3']


def tasks(
  config: ConfigDict, stage: ConfigDict, *, longer: bool
) -> dict[str, rollouts.Task]:
  """Returns the tasks that are scored, by their names.

  Args:
    config: the run's.
    stage: config of the stage.
    longer: whether there are clips of `rolled_frames`.
  """
  found = task_plan.trained(config, stage)
  if longer:
    frames = rolled_frames(config, stage)
    found[ROLLOUT] = found['prediction']._replace(frames=frames)
  return found


def rolled_frames(config: ConfigDict, stage: ConfigDict) -> int:
  """Returns the frames of a rollout; 0: the stage trains none."""
  if config.data.fixed_clips or cascade_rules.is_told(config.model):
    return 0
  trains = 'prediction' in task_plan.trained(config, stage)
  return TIMES * stage.frames * trains


def make(
  config: ConfigDict,
  stage: ConfigDict,
  generator: generate.Generator,
  params: dict[str, Any],
  frozen: dict[str, Any],
  real: dict[str, np.ndarray],
  reconstruction: ui8['m t h w 3'],
  longer: dict[str, np.ndarray],
) -> dict[str, Made]:
  """Makes k videos for each of n clips, for every task that a stage trains.

  All processes call it; see `tasks`.

  Args:
    config: the run's.
    stage: config of the stage.
    generator: its functions.
    params: averaged parameters.
    frozen: the autoencoder.
    real: 'video', 'label' and other conditions of held-out clips.
    reconstruction: these clips through the autoencoder.
    longer: as `real`, of clips with `rolled_frames`; {}: there are none.

  Returns:
    By task; {} for a stage that trains none.
  """
  found = {}
  for name, task in tasks(config, stage, longer=bool(longer)).items():
    source = longer if name == ROLLOUT else real
    count = min(CLIPS, config.sample.final, len(source['video']))
    truth = source['video'][:count]
    rows = np.tile(np.arange(count), TRIES)
    cond = {key: x[rows] for key, x in conditions.of(source).items()}
    videos = generator.samples(
      params,
      frozen,
      cond,
      config.sample.seed + np.arange(TRIES * count),
      task,
      np.tile(truth[:, list(task.given)], (TRIES, 1, 1, 1, 1)),
    )
    restored = reconstruction[:count]
    if name == ROLLOUT:
      # In parts as long as the clips that everything else is made of.
      parts = truth.reshape(-1, stage.frames, *truth.shape[2:])
      restored = generator.reconstruct(frozen, parts).reshape(truth.shape)
    videos = videos.reshape(TRIES, *truth.shape)
    found[name] = Made(task.given, videos, truth, restored)
  return found


def measure(
  config: ConfigDict, stage: ConfigDict, made: dict[str, Made]
) -> dict[str, Any]:
  """Compares what `make` returned with the truth, and logs a table for each.

  Args:
    config: the run's.
    stage: config of the stage.
    made: by task.

  Returns:
    {task: {'given', 'clips', 'tries', 'sets': {set: numbers}}}; of rollouts of
    synthetic scenes also 'laws', see `metrics.laws`.
  """
  place, numbers = given_object.make_measure(config.data), {}
  for name, (given, videos, truth, reconstruction) in made.items():
    given = list(given)
    sets = {'model': videos, 'copy': prediction.copy(truth, given)[None]}
    if name == 'interpolation':
      sets['cross_fade'] = prediction.cross_fade(truth, given)[None]
    elif len(given) > 1:
      sets['linear'] = prediction.linear(truth, given)[None]
    sets['autoencoder'] = reconstruction[None]
    rows = {
      key: prediction.summarise(clips, truth, given)
      | place(clips, truth, given)
      for key, clips in sets.items()
    }
    logging.info(
      '%s, given frames %s of %d clips:\n%s',
      name.capitalize(),
      given,
      len(truth),
      tables.by_set(rows, TITLES),
    )
    numbers[name] = {
      'given': given,
      'clips': len(truth),
      'tries': len(videos),
      'sets': rows,
    }
    if name == ROLLOUT and synthetic_score.is_synthetic(config.data):
      world = synthetic_score.world(config.data, stage)
      sets = {'model': videos, 'real': truth[None], **sets}
      found = {
        key: laws.summarise(
          laws.measure(clips.reshape(-1, *clips.shape[2:]), world)
        )
        for key, clips in sets.items()
      }
      logging.info('\n%s', laws.table(found))
      numbers[name]['laws'] = found
  return numbers


def write_videos(
  folder: epath.Path, made: dict[str, Made], frame_rate: float
) -> None:
  """Writes <task>.mp4 and .gif: real clips above the first of their videos."""
  for name, (_, videos, truth, _) in made.items():
    rows = {'real': truth[:SHOWN], name: videos[0, :SHOWN]}
    write_rows(folder / name, rows, frame_rate)


def write_rows(
  path: epath.Path, clips: dict[str, ui8['n t h w 3']], frame_rate: float
) -> None:
  """Writes an mp4 and a GIF with a row for each kind of clips.

  Args:
    path: of both files, without suffix.
    clips: by kind, equally many.
    frame_rate: frames a second.
  """
  rows = np.concatenate(list(clips.values()))
  columns = len(rows) // len(clips)
  captions = [f'{name} {i}' for name in clips for i in range(columns)]
  video_files.write_grid(path, rows, frame_rate, captions, columns)
