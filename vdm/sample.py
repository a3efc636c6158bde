r"""Generates videos with a trained model.

  python -m vdm.sample --workdir runs/synthetic --label right --num 8
  python -m vdm.sample --workdir runs/synthetic_text \
      --caption 'a red disc moves up and to the left'
  python -m vdm.sample --workdir runs/given --given clip.mp4 \
      --given_frames 0:4 --frames 64

  python -m vdm.sample --chain runs/small,runs/enlarge,runs/frames
  python -m vdm.sample --workdir runs/enlarge --low clip.mp4

The third is of a run that was trained with given frames (runs/given is one of
configs/synthetic.py:given); the last two add frames or resolution.

The model is a run, an export or an export on the hub. The videos go to
<workdir>/samples_from_step_XXXXXXXX, those of an export to a folder of that
name in outputs/NAME/, or to --out; samples.json there says how they were made.
Video i uses seed + i, so any one of them can be made again alone.
"""

from collections.abc import Callable, Sequence
import itertools

from absl import app
from absl import flags
from absl import logging

from vdm.common import console
from vdm.common import errors
from vdm.common import progress
from vdm.config import flag
from vdm.config import sampler_flags

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
flags.DEFINE_string(
  'out',
  None,
  'Folder for the videos; by default <workdir>/samples_from_step_XXXXXXXX, of '
  'an export outputs/NAME/samples_from_step_XXXXXXXX.',
)
flags.DEFINE_bool(
  'overwrite', False, 'Replace samples that are in the folder already.'
)
flags.DEFINE_string(
  'label', None, 'Class by name or number; by default one after the other.'
)
flags.DEFINE_string(
  'caption', None, 'What the videos show, of a run that reads captions.'
)
flags.DEFINE_string(
  'captions',
  None,
  'A text file with a caption a line, for one video after the other.',
)
flags.DEFINE_string(
  'text_encoder',
  None,
  'Folder of the text encoder of the run, where it is elsewhere than '
  'in training; it has to be the same one.',
)
flags.DEFINE_string(
  'image_model',
  '',
  "File of a published image model to put the model's branches on, in place of "
  'its own; an export of branches needs one.',
)
flags.DEFINE_integer(
  'num',
  None,
  'How many videos; by default 8, or one for each that is given or for each '
  'line of --captions.',
  lower_bound=1,
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the first video.', lower_bound=0)
_sampler = sampler_flags.define()
flags.DEFINE_string(
  'checkpoint', 'latest', 'latest, a step, or best (see score.best).'
)
_EMA = flags.DEFINE_float(
  'ema', None, "Width of the average to use; by default the run's."
)
flags.DEFINE_float(
  'frame_rate',
  None,
  "Frames a second, of a run that was told it; by default the data set's.",
)
flags.DEFINE_float(
  'motion',
  None,
  'How much moves, frame widths a second, of a run that was told it; by '
  'default as it comes.',
)
flags.DEFINE_string(
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
flags.DEFINE_string(
  'given',
  None,
  'Videos to continue or complete: a video, picture or .npz file, a folder of '
  'them, or pictures with commas.',
)
flags.DEFINE_string(
  'given_frames',
  '0',
  "Which of their frames are given, such as 0, 0:4 or '0,-1'.",
)
flags.DEFINE_integer(
  'frames',
  None,
  "Of a video; by default the run's. More are made window by window.",
  lower_bound=1,
)
flags.DEFINE_integer(
  'overlap',
  None,
  'Frames that a window holds of the one before it; by default half of it.',
  lower_bound=1,
)
flags.DEFINE_float(
  'context_noise',
  None,
  'Sigma at which they are held; by default as trained, 0.1 at most.',
)
flags.DEFINE_float(
  'history_guidance',
  1.0,
  'Scale of guidance by held frames; 1 is none.',
  lower_bound=0.0,
)
flags.DEFINE_float(
  'history_noise',
  0.0,
  'Sigma of the held frames that it guides by; above --context_noise it is '
  'fractional.',
)
flags.DEFINE_string(
  'autoguide',
  None,
  'A worse model to guide against in place of the null label: a step of the '
  'run, or another run or export in the same latents; none: by the label. By '
  "default the run's (sample.autoguide).",
)


def main(argv: Sequence[str]) -> None:
  del argv
  if bool(_WORKDIR.value) == bool(_CHAIN.value):
    flag.stop(
      'Give the folder of a run or an export: --workdir runs/NAME, or several '
      'in place of it: --chain runs/SMALL,runs/LARGE.'
    )
  import numpy as np

  from vdm import fulfil
  from vdm import generate
  from vdm import request
  from vdm.config import sampling
  from vdm.multihost import initialize

  console.start()
  try:
    initialize.devices()
    wanted = request.read(
      request.Options(*(flags.FLAGS[x].value for x in request.Options._fields))
    )
  except (OSError, ValueError) as error:
    flag.stop(error)
  run, num = wanted.run, len(wanted.asked.cond['label'])
  options = run.config.sample
  changes = _sampler() | {
    'ema': _EMA.value,
    'guidance': wanted.guidance,
    'low_noise': _LOW_NOISE.value if wanted.low else None,
  }
  try:
    generate.change_sampler(
      options, {k: v for k, v in changes.items() if v is not None}
    )
  except ValueError as error:
    flag.stop(error)
  made_with = fulfil.describe(wanted)
  logging.info(
    'Making %d videos with step %d: %s, guidance %s, EMA %g; they go to %s.',
    num,
    run.step,
    sampling.words(options),
    made_with.get('guidance_by') or f'{made_with["guidance"]:g}',
    options.ema,
    wanted.out,
  )
  seeds = _SEED.value + np.arange(num)

  def generator(model, windows):
    sample = model.config.sample
    advance = report_windows(num, windows, sample.batch)
    try:
      return generate.make_generator(
        model.config, model.stage, poll=advance, worse=model.worse
      )
    except ValueError as error:
      flag.stop(error)

  videos, records = fulfil.make_videos(wanted, generator, seeds)
  try:
    fulfil.write(wanted, videos, records, seeds)
  except errors.PATH_ERRORS as error:
    flag.stop(error)
  logging.info('The videos are in %s.', wanted.out)


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


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
