"""What a person asks of a trained model, read and checked.

A request names models, what the videos show and begin with, and a folder. All
of it is read before anything is made, see `vdm.fulfil`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from vdm import chain
from vdm import prompts
from vdm import trained
from vdm.common import buckets
from vdm.common import errors
from vdm.common import sizes
from vdm.diffusion import rollouts
from vdm.media import samples
from vdm.sampling import task_plan


class Options(NamedTuple):
  """What is asked for; `vdm.sample` has a flag of each name, which explains it.

  What is None or empty is left to the model.
  """

  workdir: str | None = None
  chain: Sequence[str] = ()
  out: str | None = None
  overwrite: bool = False
  label: str | None = None
  caption: str | None = None
  captions: str | None = None
  text_encoder: str | None = None
  image_model: str = ''
  num: int | None = None
  guidance: float | str | None = None
  checkpoint: str = 'latest'
  ema: float | None = None
  frame_rate: float | None = None
  motion: float | None = None
  low: str | None = None
  low_noise: float | None = None
  given: str | None = None
  given_frames: str = '0'
  frames: int | None = None
  overlap: int | None = None
  context_noise: float | None = None
  history_guidance: float = 1.0
  history_noise: float = 0.0
  autoguide: str | None = None


class Request(NamedTuple):
  """What was asked for, read and checked.

  Attributes:
    options: as it was asked for.
    run: the model, a `trained.Model`.
    given: the frames that are given, `given_frames.Given`, if any.
    low: the videos to enlarge, likewise.
    chain: what comes after the model, see `chain`.
    task: what is made of them; see `task_plan.make`.
    windows: of each video.
    asked: what the videos are made for.
    scalars: what else they are told, by name.
    frame_rate: of the model's videos, frames a second; of what the chain makes
      of them, see `made_rate`.
    guidance: see `guidance_rules.read`; None: the run's.
    out: folder to write to.
  """

  options: Options
  run: Any
  given: Any
  low: Any
  chain: list[chain.Link]
  task: rollouts.Task
  windows: int
  asked: prompts.Prompts
  scalars: dict[str, float]
  frame_rate: float
  guidance: float | str | None
  out: epath.Path

  @property
  def made_rate(self) -> float:
    """Frames a second of the videos that are written."""
    return self.chain[-1].frame_rate if self.chain else self.frame_rate


def read(options: Options, models: Sequence[Any] = ()) -> Request:
  """Reads the models and what else is named, and checks all of it.

  Args:
    options: what is asked for.
    models: those of `options`, each a `trained.Model`, if they have been read
      already; they stay as they are.

  Raises:
    FileNotFoundError: there is no such model.
    FileExistsError: see `choose_folder`.
    ValueError: the model cannot do what is asked for.
  """
  first, *names = options.chain or [options.workdir]
  if not models:
    run = trained.load(
      first,
      options.ema,
      options.checkpoint,
      options.image_model,
      options.autoguide,
    )
    others = [trained.load(name) for name in names]
  else:
    run, *others = models
    # What is asked for changes a copy.
    run = run._replace(config=run.config.copy_and_resolve_references())
    if options.autoguide is not None:
      run = trained.against(run, options.autoguide)
  scalars = prompts.choose_scalars(
    run.config, frame_rate=options.frame_rate, motion=options.motion
  )
  frame_rate = scalars.get('frame_rate', run.frame_rate)
  frames = options.frames or run.stage.frames
  given, indices = read_given(run, options, frames, scalars)
  task = rollouts.Task(
    frames=frames,
    given=indices,
    overlap=options.overlap or 0,
    context_noise=options.context_noise,
    history_guidance=options.history_guidance,
    history_noise=options.history_noise,
  )
  _, windows = task_plan.make(run.config, run.stage, task)
  if run.worse is not None:
    with errors.as_usage('--autoguide: '):
      task_plan.make(run.worse.config, run.worse.stage, task)
  low = chain.read_low(
    run.config,
    run.stage,
    frames,
    frame_rate,
    options.low,
    options.low_noise,
  )
  if low and given:
    raise ValueError('--given and --low are both given: give one.')
  links = chain.plan(run, frames, frame_rate, others, options.low_noise)
  if options.text_encoder is not None:
    reader = prompts.moved(run.reader, options.text_encoder)
    run = run._replace(reader=reader)
  asked = choose_prompts(run, options, given or low)
  guidance = prompts.choose_guidance(
    run.config,
    asked,
    options.guidance,
    run.worse is not None,
    others=prompts.told_besides(run.config, scalars, bool(given), len(windows)),
  )
  out = choose_folder(
    names[-1] if names else first,
    links[-1].run.step if links else run.step,
    options.out,
    options.overwrite,
  )
  return Request(
    options=options,
    run=run,
    given=given,
    low=low,
    chain=links,
    task=task,
    windows=len(windows),
    asked=asked,
    scalars=scalars,
    frame_rate=frame_rate,
    guidance=guidance,
    out=out,
  )


def read_given(
  run: Any, options: Options, frames: int, scalars: dict[str, float]
) -> tuple[Any, tuple[int, ...]]:
  """Returns the given frames, a `given_frames.Given` or None, and which.

  Args:
    run: the model.
    options: what is asked for.
    frames: of a video.
    scalars: that videos are told, by name.

  Raises:
    ValueError: they cannot be read, or are not of such a video.
  """
  if not options.given:
    return None, ()
  from vdm.preparation import given_frames  # It takes OpenCV.

  indices = given_frames.parse_indices(options.given_frames, frames)
  data = run.config.data.copy_and_resolve_references()
  if 'frame_rate' in scalars:
    data.update(frame_rate=scalars['frame_rate'], stride=1)
  size = sizes.of(run.stage)
  return given_frames.read(options.given, indices, data, size), indices


def choose_prompts(run: Any, options: Options, shown: Any) -> prompts.Prompts:
  """Returns what the videos are made for.

  Args:
    run: the model.
    options: what is asked for.
    shown: videos that are given or enlarged, a `given_frames.Given`, if any.

  Raises:
    ValueError: the run knows no such class or caption.
  """
  classes = run.config.model.num_classes
  captions = prompts.choose_captions(run, options.caption, options.captions)
  num = options.num or (len(shown.names) if shown else 0)
  num = num or (len(captions) if options.captions else 8)
  if not captions and not shown and options.label is None:
    captions = run.config.sample.captions
  if shown and options.label is None:
    from vdm.preparation import given_frames  # It takes OpenCV.

    labels = given_frames.labels(shown, run.config.model, run.label_names, num)
  elif captions and options.label is None:
    labels = [-1] * num
  else:
    labels = prompts.choose_labels(classes, run.label_names, options.label, num)
  return prompts.make(run.reader, labels, captions)


def choose_folder(
  source: epath.PathLike, step: int, out: str | None, overwrite: bool
) -> epath.Path:
  """Returns the folder to write to.

  Args:
    source: of the model, see `trained`.
    step: of its checkpoint.
    out: the folder that was given, if any.
    overwrite: whether samples there are replaced.

  Raises:
    FileExistsError: it holds samples and is not to be overwritten, or it is
      the run's `final/`, whose numbers are of its samples.
  """
  folder = buckets.given(
    out or trained.output_folder(source) / f'samples_from_step_{step:08d}',
    '--out',
  )
  if (folder / samples.FINAL).exists():
    raise FileExistsError(
      f"{folder} has a run's final videos and their numbers: give another "
      '--out.'
    )
  if not overwrite:
    samples.check_free(folder)
  buckets.check_writable(folder, '--out')
  return folder
