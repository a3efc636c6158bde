r"""Makes videos with a trained model.

  python -m vdm.sample --workdir runs/synthetic --label right --num 8
  python -m vdm.sample --workdir runs/synthetic_text \
      --caption 'a red disc moves up and to the left'
  python -m vdm.sample --workdir runs/synthetic --given clip.mp4 \
      --given_frames 0:4 --frames 64

  python -m vdm.sample --chain runs/small,runs/enlarge,runs/frames
  python -m vdm.sample --workdir runs/enlarge --low clip.mp4

The model is a run, an export or an export on the hub. The videos go to
<workdir>/samples_from_step_XXXXXXXX, those of an export to a folder of that
name in outputs/NAME/, or to --out; samples.json there says how they were made.
Video i uses seed + i, so any one of them can be made again alone.
"""

from collections.abc import Callable, Sequence
import itertools
from typing import Any, NamedTuple

from absl import app
from absl import flags
from absl import logging
from etils import epath

from vdm.common import console
from vdm.common import errors
from vdm.common import progress
from vdm.config import flag
from vdm.config import ranges
from vdm.config import suggest

_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  "A run's folder, an export's, or an export on the hub: "
  'hf://owner/name@revision.',
)
_CHAIN = flags.DEFINE_list(
  'chain',
  [],
  'Models in place of --workdir: the first makes videos, each next enlarges '
  'them. The other flags are of the first one.',
)
_OUT = flags.DEFINE_string(
  'out',
  None,
  'Folder for the videos; by default <workdir>/samples_from_step_XXXXXXXX, of '
  'an export outputs/NAME/samples_from_step_XXXXXXXX.',
)
_OVERWRITE = flags.DEFINE_bool(
  'overwrite', False, 'Replace samples that are in the folder already.'
)
_LABEL = flags.DEFINE_string(
  'label', None, 'Class by name or number; by default one after the other.'
)
_CAPTION = flags.DEFINE_string(
  'caption', None, 'What the videos show, of a run that reads captions.'
)
_CAPTIONS = flags.DEFINE_string(
  'captions',
  None,
  'A text file with a caption a line, for one video after the other.',
)
_TEXT_ENCODER = flags.DEFINE_string(
  'text_encoder',
  None,
  'Folder of the text encoder of the run, where it is elsewhere than '
  'in training; it has to be the same one.',
)
_IMAGE_MODEL = flags.DEFINE_string(
  'image_model',
  '',
  "File of a published image model to put the model's branches on, in place of "
  'its own; an export of branches needs one.',
)
_NUM = flags.DEFINE_integer(
  'num',
  None,
  'How many videos; by default 8, or one for each that is given or for each '
  'line of --captions.',
  lower_bound=1,
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the first video.', lower_bound=0)
_STEPS = flags.DEFINE_integer(
  'steps', None, "Of the sampler; by default the run's.", lower_bound=1
)
_GUIDANCE = flags.DEFINE_string(
  'guidance',
  None,
  'A scale, 1 for none, or scales by group, as in given=1.5,label=2,text=5; by '
  "default the run's.",
)
_METHOD = flags.DEFINE_enum(
  'method',
  None,
  ['ddim', 'heun', 'dpmpp', 'consistency'],
  "By default the run's.",
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'latest', 'latest, a step, or best (see score.best).'
)
_EMA = flags.DEFINE_float(
  'ema', None, "Width of the average to use; by default the run's."
)
_FRAME_RATE = flags.DEFINE_float(
  'frame_rate',
  None,
  "Frames a second, of a run that was told it; by default the data set's.",
)
_MOTION = flags.DEFINE_float(
  'motion',
  None,
  'How much moves, frame widths a second, of a run that was told it; by '
  'default as it comes.',
)
_LOW = flags.DEFINE_string(
  'low',
  None,
  'Videos to enlarge: a video or .npz file, or a folder of them.',
)
_LOW_NOISE = flags.DEFINE_float(
  'low_noise',
  None,
  "Sigma of noise on what is enlarged; by default each run's. More lets the "
  'model invent more.',
)
_GIVEN = flags.DEFINE_string(
  'given',
  None,
  'Videos to continue or complete: a video, picture or .npz file, a folder of '
  'them, or pictures with commas.',
)
_GIVEN_FRAMES = flags.DEFINE_string(
  'given_frames',
  '0',
  "Which of their frames are given, such as 0, 0:4 or '0,-1'.",
)
_FRAMES = flags.DEFINE_integer(
  'frames',
  None,
  "Of a video; by default the run's. More are made window by window.",
  lower_bound=1,
)
_OVERLAP = flags.DEFINE_integer(
  'overlap',
  None,
  'Frames that a window holds of the one before it; by default half of it.',
  lower_bound=1,
)
_CONTEXT_NOISE = flags.DEFINE_float(
  'context_noise',
  None,
  'Sigma at which they are held; by default as trained, 0.1 at most.',
)
_HISTORY_GUIDANCE = flags.DEFINE_float(
  'history_guidance',
  1.0,
  'Scale of guidance by held frames; 1 is none.',
  lower_bound=0.0,
)
_HISTORY_NOISE = flags.DEFINE_float(
  'history_noise',
  0.0,
  'Sigma of the held frames that it guides by; above --context_noise it is '
  'fractional.',
)
_AUTOGUIDE = flags.DEFINE_string(
  'autoguide',
  None,
  'A worse model to guide against in place of the null label: a step of the '
  'run, or another run or export in the same latents.',
)


class Request(NamedTuple):
  """What the flags ask for, read and checked.

  Attributes:
    run: the model.
    worse: the model to guide against, if any.
    given: the frames that are given, if any.
    low: the videos to enlarge, if any.
    chain: what comes after the model, see `chain`.
    task: what is made of them; see `generate.plan`.
    windows: of each video.
    asked: what the videos are made for, `prompts.Prompts`.
    scalars: what else they are told, by name.
    frame_rate: of the model's videos, frames a second.
    guidance: see `guidance_rules.read`; None: the run's.
    out: folder to write to.
  """

  run: Any
  worse: Any
  given: Any
  low: Any
  chain: Any
  task: Any
  windows: int
  asked: Any
  scalars: dict[str, float]
  frame_rate: float
  guidance: float | str | None
  out: epath.Path


def main(argv: Sequence[str]) -> None:
  del argv
  if bool(_WORKDIR.value) == bool(_CHAIN.value):
    flag.stop(
      'Give the folder of a run or an export: --workdir runs/NAME, or several '
      'in place of it: --chain runs/SMALL,runs/LARGE.'
    )
  import numpy as np

  from vdm import generate
  from vdm.media import samples
  from vdm.multihost import initialize

  console.start()
  try:
    initialize.devices()
    request = read_request()
  except (OSError, ValueError) as error:
    flag.stop(error)
  run, worse, asked = request.run, request.worse, request.asked
  labels = asked.cond['label']
  num = len(labels)
  options = run.config.sample
  changes = {
    'ema': _EMA.value,
    'steps': _STEPS.value,
    'guidance': request.guidance,
    'method': _METHOD.value,
    'low_noise': _LOW_NOISE.value if request.low else None,
  }
  generate.change_sampler(
    options, {k: v for k, v in changes.items() if v is not None}
  )
  made_with = describe(request)
  logging.info(
    'Making %d videos with step %d: %s, %d steps, guidance %s, EMA %g; they go '
    'to %s.',
    *(num, run.step, options.method, options.steps),
    made_with.get('guidance_by') or f'{made_with["guidance"]:g}',
    *(options.ema, request.out),
  )
  seeds = _SEED.value + np.arange(num)
  try:
    make = generate.make_generator(
      run.config,
      run.stage,
      poll=report_windows(num, request.windows, options.batch),
      worse=worse and (worse.config, worse.params),
    )
  except ValueError as error:
    flag.stop(error)
  videos, records = make_videos(request, make, seeds)
  if records:
    made_with['chain'] = records
  try:
    samples.write(
      request.out,
      videos,
      labels,
      run.label_names,
      seeds,
      request.chain[-1].frame_rate if request.chain else request.frame_rate,
      made_with,
      each=True,
      prompts=asked.captions,
    )
  except errors.PATH_ERRORS as error:
    flag.stop(error)
  logging.info('The videos are in %s.', request.out)


def read_request() -> Request:
  """Reads the model and what else the flags name, and checks all of it.

  Raises:
    FileNotFoundError: there is no such model.
    FileExistsError: see `choose_folder`.
    ValueError: the model cannot do what is asked for.
  """
  from vdm import chain
  from vdm import generate
  from vdm import prompts
  from vdm import trained
  from vdm.common import sizes
  from vdm.diffusion import rollouts

  first, *others = _CHAIN.value or [_WORKDIR.value]
  run = trained.load(
    *(first, _EMA.value, _CHECKPOINT.value, _IMAGE_MODEL.value)
  )
  model, stage = run.config.model, run.stage
  scalars = choose_scalars(run.config)
  frame_rate = scalars.get('frame_rate', run.frame_rate)
  frames, given, indices = _FRAMES.value or stage.frames, None, ()
  if _GIVEN.value:
    from vdm.preparation import given_frames

    indices = given_frames.parse_indices(_GIVEN_FRAMES.value, frames)
    data = run.config.data.copy_and_resolve_references()
    if 'frame_rate' in scalars:
      data.update(frame_rate=scalars['frame_rate'], stride=1)
    given = given_frames.read(_GIVEN.value, indices, data, sizes.of(stage))
  task = rollouts.Task(
    *(frames, indices, _OVERLAP.value or 0, _CONTEXT_NOISE.value),
    *(_HISTORY_GUIDANCE.value, _HISTORY_NOISE.value),
  )
  _, windows = generate.plan(run.config, stage, task)
  worse = None
  if _AUTOGUIDE.value:
    worse = trained.load_worse(run, _AUTOGUIDE.value)
    with errors.as_usage('--autoguide: '):
      generate.plan(worse.config, worse.stage, task)
  low = chain.read_low(
    *(run.config, stage, frames, frame_rate, _LOW.value, _LOW_NOISE.value)
  )
  if low and given:
    raise ValueError('--given and --low are both given: give one.')
  links = chain.plan(
    *(run, frames, frame_rate, [trained.load(x) for x in others]),
    _LOW_NOISE.value,
  )
  if _TEXT_ENCODER.value is not None:
    reader = prompts.moved(run.reader, _TEXT_ENCODER.value)
    run = run._replace(reader=reader)
  captions = prompts.choose_captions(run, _CAPTION.value, _CAPTIONS.value)
  shown = given or low  # Of the two, one is given at most.
  num = _NUM.value or (len(shown.names) if shown else 0)
  num = num or (len(captions) if _CAPTIONS.value else 8)
  if not captions and not shown and _LABEL.value is None:
    captions = run.config.sample.captions
  if shown and _LABEL.value is None:
    from vdm.preparation import given_frames

    labels = given_frames.labels(shown, model, run.label_names, num)
  elif captions and _LABEL.value is None:
    labels = [-1] * num
  else:
    labels = choose_labels(
      model.num_classes, run.label_names, _LABEL.value, num
    )
  asked = prompts.make(run.reader, labels, captions)
  return Request(
    run,
    worse,
    given,
    low,
    links,
    task,
    len(windows),
    asked,
    scalars,
    frame_rate,
    prompts.choose_guidance(
      *(run.config, asked, _GUIDANCE.value, worse is not None),
      others=choose_others(run.config, scalars, given, len(windows)),
    ),
    choose_folder(
      others[-1] if others else first,
      links[-1].run.step if links else run.step,
      *(_OUT.value, _OVERWRITE.value),
    ),
  )


def make_videos(
  request: Request, make: Any, seeds: Any
) -> tuple[Any, list[dict[str, Any]]]:
  """Returns the videos, and what the models after the first one did.

  Args:
    request: what is asked for.
    make: the `generate.Generator` of the first model.
    seeds: of the videos.
  """
  import numpy as np

  from vdm import chain

  run, asked, num = request.run, request.asked, len(seeds)

  def for_all(given):
    frames = given.frames
    return np.resize(frames, (num, *frames.shape[1:]))

  scalars = {name: np.full(num, x) for name, x in request.scalars.items()}
  cond = asked.cond | scalars
  if request.low:
    cond['small'] = for_all(request.low)
  given = for_all(request.given) if request.given else None
  videos = make.samples(
    run.params, run.frozen, cond, seeds, request.task, given
  )
  labels = asked.cond['label']
  return chain.make(
    *(request.chain, videos, labels, run.label_names, asked.captions, seeds)
  )


def describe(request: Request) -> dict[str, Any]:
  """Returns what made the samples, for samples.json."""
  from vdm import generate

  run, worse, task = request.run, request.worse, request.task
  made_with = generate.describe_samples(run.config, run.source, run.step)
  if _IMAGE_MODEL.value:
    made_with['image_model'] = _IMAGE_MODEL.value
  if request.scalars:
    made_with['scalars'] = request.scalars
  if request.given:
    from vdm.preparation import given_frames

    made_with['given'] = given_frames.describe(
      request.given,
      _GIVEN.value,
      task.given,
      len(request.asked.cond['label']),
    )
  if request.low:
    from vdm.preparation import given_frames

    made_with['low_noise'] = run.config.sample.low_noise
    made_with['low'] = given_frames.describe_small(
      request.low, _LOW.value, len(request.asked.cond['label'])
    )
  if request.given or request.windows > 1:
    planned, _ = generate.plan(run.config, run.stage, task)
    made_with['task'] = {
      k: v for k, v in planned._asdict().items() if k != 'given'
    }
  if worse:
    made_with['guidance'] = run.config.sample.guidance
    made_with['autoguide'] = {
      'run': worse.source,
      'step': worse.step,
      'ema': worse.config.sample.ema,
    }
  return made_with


def report_windows(num: int, windows: int, batch: int) -> Callable[[], None]:
  """Returns a function to call after every window of every batch.

  Args:
    num: number of videos.
    windows: of each.
    batch: videos that are made at once.
  """
  unit = 'video' if windows == 1 else 'window'
  report = progress.reporter('Sampling', num * windows, unit)
  count = itertools.count(1)

  def advance() -> None:
    batches, part = divmod(next(count), windows)
    done = min(batches * batch, num)
    report(done * windows + part * min(batch, num - done))

  return advance


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
  from vdm import trained
  from vdm.common import buckets
  from vdm.media import samples

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


def choose_labels(
  num_classes: int, label_names: list[str], label: str | None, num: int
) -> Sequence[int]:
  """Returns the class of each video.

  Raises:
    ValueError: the run has no such class.
  """
  if label is None:
    return [i % num_classes if num_classes else -1 for i in range(num)]
  names = label_names[:num_classes]
  if label in names:
    return [names.index(label)] * num
  if label.isdigit() and int(label) < num_classes:
    return [int(label)] * num
  if not num_classes:
    raise ValueError('The run knows no classes: leave --label out.')
  if (near := suggest.nearest(label, names)) is not None:
    raise ValueError(f'The run has no class {label!r}: did you mean {near!r}?')
  raise ValueError(
    f'The run has no class {label!r}{suggest.hint("", names)} Numbers are 0 to '
    f'{num_classes - 1}.'
  )


def choose_scalars(config: Any) -> dict[str, float]:
  """Returns the numbers that videos are told, by name.

  Args:
    config: the run's.

  Raises:
    ValueError: the run was not trained with them.
  """
  asked = {'frame_rate': _FRAME_RATE.value, 'motion': _MOTION.value}
  asked = {name: x for name, x in asked.items() if x is not None}
  for name, value in asked.items():
    if problem := ranges.problem(config, name, value):
      raise ValueError(problem)
  return asked


def choose_others(
  config: Any, scalars: dict[str, float], given: Any, windows: int
) -> set[str]:
  """Returns the groups of conditions besides labels and captions that are told.

  Args:
    config: the run's.
    scalars: see `Request`.
    given: likewise.
    windows: likewise; each holds frames of the one before it.
  """
  told = {*scalars, *{'frame_rate'}.intersection(config.model.scalars)}
  return told | ({'given'} if given or windows > 1 else set())


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
