"""Judges a run while it trains, always on the same clips and seeds."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import ui8
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm import prompts
from vdm.config import sampling
from vdm.evaluation import given_score
from vdm.evaluation import noised_clips
from vdm.evaluation import small_score
from vdm.media import samples
from vdm.media import video_files
from vdm.multihost import coordination
from vdm.sampling import task_plan
from vdm.training import earlier
from vdm.training import inputs
from vdm.training import objectives
from vdm.training import running
from vdm.training import stages
from vdm.training import throughput
from vdm.training import train_state
from vdm.training import writer
from vdm.training.destinations import background


class Evaluator:
  """Validation, previews and the small score of one stage."""

  def __init__(
    self,
    config: ConfigDict,
    span: stages.Span,
    objective: objectives.Objective,
    frozen: dict[str, Any],
    clips: Callable[[int], dict[str, np.ndarray]],
    log: writer.Writer,
    folder: epath.Path,
    frame_rate: float,
    label_names: Sequence[str] = (),
    more_scores: Callable[..., dict[str, float]] | None = None,
    asked: prompts.Prompts | None = None,
    worse: Callable[..., generate.Average | None] | None = None,
  ):
    """Reads the clips.

    Args:
      config: the run's; `train` has the cadences.
      span: the stage.
      objective: the stage's.
      frozen: the autoencoder that it works in.
      clips: returns so many held-out clips, always the same ones.
      log: where rows go.
      folder: `<workdir>/samples`.
      frame_rate: of the clips, frames a second.
      label_names: of their classes, for the captions of previews.
      more_scores: beside the small score's own, see `SmallScore`.
      asked: of the videos of previews, one each; None: what is told of the
        clips that are shown beside them.
      worse: (step, params) -> what videos are guided against, see
        `training.earlier`; None: conditions.
    """
    self._span, self._objective, self._frozen = span, objective, frozen
    self._clips = clips(config.train.eval_clips)
    self._asked, self._worse = asked, worse
    self._small_score = small_score.make_small_score(
      config.score,
      span.stage,
      objective,
      lambda: clips(config.score.num),
      more_scores,
    )
    # Videos of the task that a stage with given frames is best judged by.
    self._given, self._num = None, config.sample.num
    if objective.samples is not None:
      tasks = task_plan.trained(config, span.stage)
      names = ('prediction', 'image_to_video')
      self._given = next(((n, tasks[n]) for n in names if n in tasks), None)
    self._log, self._folder, self._frame_rate = log, folder, frame_rate
    self._seed, self._label_names = config.sample.seed, label_names
    self._validated, self._shown = config.optim.ema[-1], config.sample.ema
    self._every = {
      'validation': config.train.eval_every,
      'preview': config.train.preview_every,
    }
    if self._small_score is not None:
      self._every['score'] = config.score.every

  def due(self, step: int) -> list[str]:
    """Returns which of validation, preview and score a step ends with."""
    n, last = step - self._span.start, step == self._span.stop
    return [name for name, k in self._every.items() if last or n % k == 0]

  def __call__(
    self, step: int, state: train_state.TrainState
  ) -> dict[str, float]:
    """Evaluates what is due at a step, and returns the small score, if any.

    Raises:
      Stopped: a signal interrupted it; none of it is needed to resume.
    """
    due, scores = self.due(step), {}
    if 'validation' in due:
      average = train_state.averaged(state, self._validated)
      self._write(
        step, self._objective.validate(average, self._frozen, self._clips)
      )
    average = train_state.averaged(state, self._shown)
    worse = self._worse and self._worse(step, state.params)
    frozen = self._frozen | ({objectives.EARLIER: worse} if worse else {})
    if 'preview' in due:
      clips = self._objective.preview(average, frozen, self._preview_clips())
      preview = write_preview(
        self._folder / f'step_{step:08d}',
        clips,
        self._frame_rate,
        self._captions(clips),
      )
      self._log.write_preview(step, preview)
      if self._given is not None:
        self._preview_given(step, average, frozen)
    if 'score' in due:
      scores = self._small_score(average, frozen)
      self._write(step, scores)
    return scores

  def _preview_given(self, step, average, frozen):
    """Writes given.mp4 and .gif: held-out clips above what goes on from them.

    The first quarter is given, or the first frame. It is the same clips and
    seeds every time.
    """
    name, task = self._given
    clips = {k: x[: self._num] for k, x in self._clips.items()}
    made = self._objective.samples(average, frozen, clips, task)
    if coordination.is_first():
      rows = {'real': clips['video'], name: made}
      path = self._folder / f'step_{step:08d}' / 'given'
      given_score.write_rows(path, rows, self._frame_rate)

  def _preview_clips(self):
    """Returns the clips of a preview, with the conditions of the prompts."""
    if self._asked is None:
      return self._clips
    count = len(self._asked.captions)
    rows = np.arange(count) % len(self._clips['video'])
    return {k: x[rows] for k, x in self._clips.items()} | self._asked.cond

  def _captions(self, clips):
    """Returns a caption for each preview: kind, what is told, and seed."""
    labels, told = self._clips['label'], self._clips.get('caption')
    captions = []
    for name, videos in clips.items():
      for i in range(len(videos)):
        label = labels[i % len(labels)]
        known = 0 <= label < len(self._label_names)
        words = [self._label_names[label]] if known else []
        if name == 'samples' and self._asked is not None:
          words = [samples.wrapped(self._asked.captions[i])]
        elif told is not None:
          words = [samples.wrapped(str(told[i % len(told)]))]
        words += [f'seed {self._seed + i}'] if name == 'samples' else []
        captions.append(f'{name} {i}\n{", ".join(words)}')
    return captions

  def _write(self, step, values):
    self._log.write(step, self._span.name, values)
    logging.info('%s', throughput.line(self._span, step, values))


def make(
  run: running.Run, span: stages.Span, frozen: dict[str, Any], step: int
) -> Evaluator:
  """Returns what judges a stage.

  Args:
    run: what the stages share.
    span: the stage.
    frozen: the autoencoder that it works in.
    step: global step that it is at.
  """
  config, info = run.config, run.sources['train'].info
  shapes = noised_clips.make_shape_score(
    sampling.of_stage(config, span.stage),
    span.stage,
    run.mesh,
    run.signal.check,
  )
  return Evaluator(
    config,
    span,
    run.objectives[span.name],
    frozen,
    functools.partial(
      inputs.held_out_clips, config, run.sources, span, texts=run.texts
    ),
    run.log,
    run.workdir / 'samples',
    info['frame_rate'] / config.data.stride,
    info['label_names'],
    shapes,
    prompts.configured(config.sample, run.texts, config.sample.num),
    earlier.reader(config, span, run.mesh, run.workdir, step),
  )


def write_preview(
  folder: epath.Path,
  clips: dict[str, ui8['n t h w 3']],
  frame_rate: float,
  captions: Sequence[str] = (),
) -> background.Preview | None:
  """Writes a contact sheet and, for videos, a grid to watch as mp4 and GIF.

  Args:
    folder: `<workdir>/samples/step_XXXXXXXX`.
    clips: by their names, such as 'real' and 'samples'.
    frame_rate: frames a second.
    captions: of all clips, in their order; by default kind and number.

  Returns:
    The grid without captions as a GIF, and the mp4 file or, of images, the
    sheet; None on all processes but the first.
  """
  if not coordination.is_first():
    return None
  rows = np.concatenate(list(clips.values()))
  names = captions or [
    f'{name} {i}' for name, c in clips.items() for i in range(len(c))
  ]
  sheet = video_files.contact_sheet(rows, names, upscale=2)
  video_files.write_png(folder / 'sheet.png', sheet)
  # One column for each clip and what was made of it.
  columns = max(map(len, clips.values()))
  grid = video_files.tile(rows, columns)
  path = folder / 'sheet.png'
  if len(grid) > 1:
    path = folder / 'grid.mp4'
    video_files.write_grid(folder / 'grid', rows, frame_rate, names, columns)
  return background.Preview(video_files.gif_bytes(grid, frame_rate), path)
