"""Models one after the other: the first makes videos, each next enlarges them.

Every model has its own sampler, guidance and random numbers, from the same
seeds. Labels and captions go along where the next model knows them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import logging
from etils.array_types import IntArray, ui8
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm import generate
from vdm import prompts
from vdm import trained
from vdm.common import sizes
from vdm.config import cascade_rules
from vdm.config import guidance_rules
from vdm.diffusion import cascade
from vdm.diffusion import rollouts
from vdm.sampling import task_plan

# Makes the generator of a model, told how many windows each video has.
Generators = Callable[[trained.Model, int], generate.Generator]


class Link(NamedTuple):
  """A model that enlarges, and what it makes.

  Attributes:
    run: the model.
    task: of the videos, with their number of frames.
    size: of these, px.
    frame_rate: frames a second.
    scalars: what the model is told besides labels and captions, by name.
    windows: of each video.
  """

  run: trained.Model
  task: rollouts.Task
  size: sizes.Size
  frame_rate: float
  scalars: dict[str, float]
  windows: int


def read_low(
  config: ConfigDict,
  stage: ConfigDict,
  frames: int,
  frame_rate: float,
  source: str | None,
  low_noise: float | None,
) -> Any | None:
  """Returns videos to enlarge, as `given_frames.Given`; None where none are.

  Args:
    config: the run's.
    stage: the stage's.
    frames: of the videos that are made.
    frame_rate: of these, frames a second.
    source: of the videos to enlarge; None: none are named.
    low_noise: sigma of the noise on them; None: the run's.

  Raises:
    UsageError: they cannot be read.
    ValueError: the run enlarges none, or needs some.
  """
  if not cascade_rules.is_told(config.model):
    if source:
      raise ValueError(
        'The run makes videos from nothing and enlarges none: leave --low out, '
        'or name a run that was trained with config.model.low.'
      )
    return None
  if not source:
    raise ValueError(
      'The run enlarges smaller videos: give some by --low, or the model that '
      'makes them by --chain.'
    )
  if low_noise is not None:
    for problem in cascade_rules.noise_problems(
      config.model, low_noise, '--low_noise'
    ):
      raise ValueError(problem)
  from vdm.preparation import given_frames

  return given_frames.small_videos(source, config, stage, frames, frame_rate)


def plan(
  first: trained.Model,
  frames: int,
  frame_rate: float,
  others: Sequence[trained.Model],
  low_noise: float | None = None,
) -> list[Link]:
  """Returns what the models after the first one make, all of it checked.

  Args:
    first: the model that makes what is enlarged.
    frames: of its videos.
    frame_rate: of its videos, frames a second.
    others: the models after it, in order.
    low_noise: sigma of the noise on smaller videos; None: as each run has it.

  Raises:
    ValueError: a model does not enlarge what the one before it makes, or was
      not trained with the frame rate that it would be told.
  """
  size, before, found = sizes.of(first.stage), first, []
  for run in others:
    # What is asked for changes a copy: a model may be used again.
    run = run._replace(config=run.config.copy_and_resolve_references())
    low = run.config.model.low
    if not cascade_rules.is_told(run.config.model):
      raise ValueError(
        f'--chain: {run.source} makes videos from nothing and enlarges none, '
        'so it can only come first.'
      )
    if low_noise is not None:
      run.config.sample.low_noise = low_noise
    for problem in cascade_rules.noise_problems(
      run.config.model, run.config.sample.low_noise, '--low_noise'
    ):
      raise ValueError(f'--chain: {run.source}: {problem}')
    wanted = tuple(x // low.space_factor for x in sizes.of(run.stage))
    fewest = run.stage.frames // low.time_factor
    if size != wanted or frames < fewest:
      raise ValueError(
        f'--chain: {run.source} enlarges {fewest} frames of '
        f'{sizes.text(wanted)} px, and {before.source} makes {frames} of '
        f'{sizes.text(size)} px.'
      )
    frames, size = frames * low.time_factor, sizes.of(run.stage)
    frame_rate *= low.time_factor
    task = rollouts.Task(frames=frames)
    told = 'frame_rate' in run.config.model.scalars
    try:
      scalars = prompts.choose_scalars(
        run.config, frame_rate=frame_rate if told else None
      )
      _, windows = task_plan.make(run.config, run.stage, task)
    except ValueError as error:
      raise ValueError(f'--chain: {run.source}: {error}') from error
    found.append(Link(run, task, size, frame_rate, scalars, len(windows)))
    before = run
  return found


def make(
  links: Sequence[Link],
  videos: ui8['n s y x 3'],
  labels: IntArray[' n'],
  label_names: Sequence[str],
  captions: Sequence[str],
  seeds: IntArray[' n'],
  generators: Generators,
) -> tuple[ui8['n t h w 3'], list[dict[str, Any]]]:
  """Returns videos that all models have enlarged, and what each did.

  Args:
    links: see `plan`.
    videos: of the first model.
    labels: their classes, -1 for none.
    label_names: of the first model's classes.
    captions: one each, or ().
    seeds: of the videos.
    generators: of the models, such as `keeping` returns.

  Returns:
    (videos, records): the records are for samples.json.
  """
  records = []
  for link in links:
    config = link.run.config.copy_and_resolve_references()
    run = link.run._replace(config=config)
    asked = hand_on(run, labels, label_names, captions)
    guidance = prompts.choose_guidance(
      config,
      asked,
      None,
      run.worse is not None,
      others=prompts.told_besides(config, link.scalars, False, link.windows),
    )
    if guidance is not None:
      guidance_rules.change(config.sample, guidance)
    logging.info(
      'Enlarging with %s to %d frames of %s px.',
      run.source,
      link.task.frames,
      sizes.text(link.size),
    )
    scalars = {k: np.full(len(seeds), x) for k, x in link.scalars.items()}
    videos = generators(run, link.windows).samples(
      run.params,
      run.frozen,
      asked.cond | scalars | {cascade.SMALL: videos},
      seeds,
      link.task,
    )
    records.append(_describe(link._replace(run=run), asked))
  return videos, records


def _describe(link: Link, asked: prompts.Prompts) -> dict[str, Any]:
  """Returns what a model made, its configuration as it was used."""
  run = link.run
  return {
    **generate.describe_samples(run.config, run.source, run.step, run.worse),
    **({'scalars': link.scalars} if link.scalars else {}),
    'low_noise': run.config.sample.low_noise,
    'frames': link.task.frames,
    **sizes.keys(link.size),
    'frame_rate': link.frame_rate,
    'labels': np.asarray(asked.cond['label']).tolist(),
  }


def keeping(mesh: jax.sharding.Mesh | None = None) -> Generators:
  """Returns a function of a model that makes its generator once.

  What a generator has compiled serves all later videos of the same model and
  settings. A second argument of the function, the number of windows of a video,
  changes nothing.

  Args:
    mesh: see `generate.make_generator`.
  """
  kept = {}

  def make(model: trained.Model, windows: int = 1) -> generate.Generator:
    del windows
    config, worse = model.config, model.worse
    against = worse and (str(worse.source), worse.step)
    key = str(model.source), model.step, config.to_json(), against
    if key not in kept:
      kept[key] = generate.make_generator(
        config, model.stage, mesh, worse=worse
      )
    return kept[key]

  return make


def hand_on(
  run: trained.Model,
  labels: IntArray[' n'],
  label_names: Sequence[str],
  captions: Sequence[str],
) -> prompts.Prompts:
  """Returns labels and captions as another model knows them, if it does.

  A label is known by its name. What is not known is not told.

  Args:
    run: the model that they go to.
    labels: classes of the model that they are from; -1 for none.
    label_names: of these classes.
    captions: one each, or ().
  """
  known = run.label_names[: run.config.model.num_classes]
  told = renamed(labels, label_names, known)
  if run.reader is not None and captions:
    captions = [_if_known(run.reader, caption) for caption in captions]
  return prompts.make(run.reader, told, captions)


def renamed(
  labels: IntArray[' n'], names: Sequence[str], known: Sequence[str]
) -> list[int]:
  """Returns labels as a model knows them that has other classes.

  Args:
    labels: classes; -1 for none.
    names: of these classes.
    known: names of the other classes; what is not among them becomes -1.
  """
  known = list(known)
  return [
    known.index(names[n]) if n >= 0 and names[n] in known else -1
    for n in np.asarray(labels).tolist()
  ]


def _if_known(reader, caption) -> str:
  try:
    reader.check(caption)
  except ValueError as error:
    logging.warning('A caption is not told: %s', error)
    return ''
  return caption
