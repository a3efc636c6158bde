"""Scores a run on clips of which it is given some frames: the truth is known.

Held-out clips are continued and completed several times each and compared with
what really follows, beside rules that know nothing of the world (see
`metrics.prediction`) and beside the autoencoder, which no network exceeds.
"""

from collections.abc import Callable
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm.common import tables
from vdm.diffusion import conditions
from vdm.evaluation import synthetic_score
from vdm.media import video_files
from vdm.metrics import prediction
from vdm.metrics import synthetic_truth

CLIPS, TRIES = 16, 4
SHOWN = 8
_TITLES = {
  'psnr': ('PSNR, dB', 1),
  'psnr_best': (f'PSNR, best of {TRIES}, dB', 1),
  'ssim': ('SSIM', 1),
  'ssim_best': (f'SSIM, best of {TRIES}', 1),
  'position_error': ('position error, px at 64 px', 1),
  'position_lost': ('object lost, %', 100),
}


def make(
  config: ConfigDict,
  stage: ConfigDict,
  generator: generate.Generator,
  params: dict[str, Any],
  frozen: dict[str, Any],
  real: dict[str, np.ndarray],
) -> dict[str, ui8['k n t h w 3']]:
  """Makes k videos for each of n clips, for every task that a stage trains.

  All processes call it; see `generate.trained_tasks`.

  Args:
    config: the run's.
    stage: config of the stage.
    generator: its functions.
    params: averaged parameters.
    frozen: the autoencoder.
    real: 'video' and 'label' of held-out clips.

  Returns:
    {task: videos}; {} for a stage that trains none.
  """
  count = min(CLIPS, config.sample.final, len(real['video']))
  truth = real['video'][:count]
  rows = np.tile(np.arange(count), TRIES)
  cond = {name: x[rows] for name, x in conditions.of(real).items()}
  found = {}
  for name, task in generate.trained_tasks(config, stage).items():
    videos = generator.samples(
      params,
      frozen,
      cond,
      config.sample.seed + np.arange(TRIES * count),
      task,
      np.tile(truth[:, list(task.given)], (TRIES, 1, 1, 1, 1)),
    )
    found[name] = videos.reshape(TRIES, *truth.shape)
  return found


def measure(
  config: ConfigDict,
  stage: ConfigDict,
  videos: dict[str, ui8['k n t h w 3']],
  real: ui8['m t h w 3'],
  reconstruction: ui8['m t h w 3'],
) -> dict[str, Any]:
  """Compares what `make` returned with the truth, and logs a table for each.

  Args:
    config: the run's.
    stage: config of the stage.
    videos: by task.
    real: the clips of which frames were given, and perhaps more.
    reconstruction: these clips through the autoencoder.

  Returns:
    {task: {'given', 'clips', 'tries', 'sets': {set: numbers}}}.
  """
  place = _position_measure(config.data)
  tasks, numbers = generate.trained_tasks(config, stage), {}
  for name, tries in videos.items():
    given, count = list(tasks[name].given), tries.shape[1]
    truth = real[:count]
    sets = {'model': tries, 'copy': prediction.copy(truth, given)[None]}
    if name == 'interpolation':
      sets['cross_fade'] = prediction.cross_fade(truth, given)[None]
    elif len(given) > 1:
      sets['linear'] = prediction.linear(truth, given)[None]
    sets['autoencoder'] = reconstruction[None, :count]
    rows = {
      key: prediction.summarise(clips, truth, given)
      | place(clips, truth, given)
      for key, clips in sets.items()
    }
    logging.info(
      '%s, given frames %s of %d clips:\n%s',
      *(name.capitalize(), given, count, tables.by_set(rows, _TITLES)),
    )
    numbers[name] = {
      'given': given,
      'clips': count,
      'tries': len(tries),
      'sets': rows,
    }
  return numbers


def write_videos(
  folder: epath.Path,
  real: ui8['m t h w 3'],
  videos: dict[str, ui8['k n t h w 3']],
  frame_rate: float,
) -> None:
  """Writes <task>.mp4 and .gif: real clips above the first of their videos."""
  for name, tries in videos.items():
    shown = tries[0, :SHOWN]
    rows = {'real': real[: len(shown)], name: shown}
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


def _position_measure(data: ConfigDict) -> Callable[..., dict[str, float]]:
  """Returns (tries, truth, given) -> the error of the object's place, if known.

  It is measured at the last free frame, against the straight line that the
  true clip follows.
  """
  if not synthetic_score.is_straight(data):
    return lambda *_: {}

  def measure(tries, truth, given):
    frame = int(np.setdiff1d(np.arange(truth.shape[1]), given)[-1])
    law = synthetic_truth.measure(truth)
    wanted = law['start'] + frame * law['velocity']
    places = [synthetic_truth.measure(x)['centre'][:, frame] for x in tries]
    error = np.linalg.norm(np.stack(places) - wanted, axis=-1)
    error = error[:, np.isfinite(wanted).all(-1)] * 64 / min(truth.shape[2:4])
    known = np.isfinite(error)
    if not error.size:
      return {}
    found = {'position_lost': float(1 - known.mean())}
    if known.any():
      found['position_error'] = float(error[known].mean())
    return found

  return measure
