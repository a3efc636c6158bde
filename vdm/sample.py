"""Makes videos with a trained model.

  python -m vdm.sample --workdir runs/synthetic --label right --num 8

The model is a run, an export or an export on the hub. The videos go to
<workdir>/samples_from_step_XXXXXXXX, those of an export to a folder of that
name in outputs/NAME/, or to --out; samples.json there says how they were made.
Video i uses seed + i, so any one of them can be made again alone.
"""

from collections.abc import Sequence
import itertools

from absl import app
from absl import flags
from absl import logging
from etils import epath

from vdm.common import console
from vdm.common import errors
from vdm.common import progress
from vdm.config import flag
from vdm.config import suggest

_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  "A run's folder, an export's, or an export on the hub: "
  'hf://owner/name@revision.',
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
_NUM = flags.DEFINE_integer('num', 8, 'How many videos.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the first video.', lower_bound=0)
_STEPS = flags.DEFINE_integer(
  'steps', None, "Of the sampler; by default the run's.", lower_bound=1
)
_GUIDANCE = flags.DEFINE_float(
  'guidance', None, "1 is none; by default the run's.", lower_bound=0.0
)
_METHOD = flags.DEFINE_enum(
  'method', None, ['ddim', 'heun', 'dpmpp'], "By default the run's."
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'latest', 'latest, a step, or best (see score.best).'
)
_EMA = flags.DEFINE_float(
  'ema', None, "Width of the average to use; by default the run's."
)


def main(argv: Sequence[str]) -> None:
  del argv
  if not _WORKDIR.value:
    flag.stop('Give the folder of a run or an export: --workdir runs/NAME.')
  import numpy as np

  from vdm import generate
  from vdm import trained
  from vdm.media import samples
  from vdm.multihost import initialize

  console.start()
  try:
    initialize.devices()
    run = trained.load(
      _WORKDIR.value, ema=_EMA.value, checkpoint=_CHECKPOINT.value
    )
    labels = choose_labels(
      run.config.model.num_classes, run.label_names, _LABEL.value, _NUM.value
    )
    if _GUIDANCE.value is not None and not run.config.model.num_classes:
      raise ValueError('The run knows no classes: leave --guidance out.')
    out = choose_folder(_WORKDIR.value, run.step, _OUT.value, _OVERWRITE.value)
  except (OSError, ValueError) as error:
    flag.stop(error)
  options = run.config.sample
  changes = {
    'ema': _EMA.value,
    'steps': _STEPS.value,
    'guidance': _GUIDANCE.value,
    'method': _METHOD.value,
  }
  generate.change_sampler(
    options, {k: v for k, v in changes.items() if v is not None}
  )
  made_with = generate.describe_samples(run.config, run.source, run.step)
  logging.info(
    'Making %d videos with step %d: %s, %d steps, guidance %g, EMA %g; they go '
    'to %s.',
    *(_NUM.value, run.step, options.method, options.steps),
    *(made_with['guidance'], options.ema, out),
  )
  seeds = _SEED.value + np.arange(_NUM.value)
  report = progress.reporter('Sampling', _NUM.value, 'video')
  done = itertools.count(options.batch, options.batch)
  try:
    make = generate.make_generator(
      run.config, run.stage, poll=lambda: report(min(next(done), _NUM.value))
    )
  except ValueError as error:
    flag.stop(error)
  videos = make.samples(run.params, run.frozen, labels, seeds)
  try:
    samples.write(
      out,
      videos,
      labels,
      run.label_names,
      seeds,
      run.frame_rate,
      made_with,
      each=True,
    )
  except errors.PATH_ERRORS as error:
    flag.stop(error)
  logging.info('The videos are in %s.', out)


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
  from vdm import generate

  if label is None:
    return generate.preview_labels(num_classes, num)
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


if __name__ == '__main__':
  app.run(main, flags_parser=flag.parse)
