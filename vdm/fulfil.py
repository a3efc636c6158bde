"""Makes what was requested, and writes it with how it was made."""

from typing import Any

from etils.array_types import ui8
import numpy as np

from vdm import chain
from vdm import generate
from vdm import request
from vdm.media import samples
from vdm.sampling import task_plan


def make_videos(
  wanted: request.Request,
  generators: chain.Generators,
  seeds: np.ndarray,
) -> tuple[ui8['n t h w 3'], list[dict[str, Any]]]:
  """Returns the videos, and what the models after the first one did.

  Args:
    wanted: what is asked for.
    generators: of the models, see `chain.Generators`.
    seeds: of the videos, [n].
  """
  run, asked, num = wanted.run, wanted.asked, len(seeds)

  def for_all(given):
    frames = given.frames
    return np.resize(frames, (num, *frames.shape[1:]))

  scalars = {name: np.full(num, x) for name, x in wanted.scalars.items()}
  cond = asked.cond | scalars
  if wanted.low:
    cond['small'] = for_all(wanted.low)
  given = for_all(wanted.given) if wanted.given else None
  videos = generators(run, wanted.windows).samples(
    run.params, run.frozen, cond, seeds, wanted.task, given
  )
  labels = asked.cond['label']
  return chain.make(
    wanted.chain,
    videos,
    labels,
    run.label_names,
    asked.captions,
    seeds,
    generators,
  )


def describe(wanted: request.Request) -> dict[str, Any]:
  """Returns what made the samples, for samples.json."""
  run, options = wanted.run, wanted.options
  num = len(wanted.asked.cond['label'])
  made_with = generate.describe_samples(
    run.config, run.source, run.step, run.worse
  )
  if options.image_model:
    made_with['image_model'] = options.image_model
  if wanted.scalars:
    made_with['scalars'] = wanted.scalars
  if wanted.given:
    from vdm.preparation import given_frames  # It takes OpenCV.

    made_with['given'] = given_frames.describe(
      wanted.given, options.given, wanted.task.given, num
    )
  if wanted.low:
    from vdm.preparation import given_frames  # It takes OpenCV.

    made_with['low_noise'] = run.config.sample.low_noise
    made_with['low'] = given_frames.describe_small(wanted.low, options.low, num)
  if wanted.given or wanted.windows > 1:
    planned, _ = task_plan.make(run.config, run.stage, wanted.task)
    made_with['task'] = {
      k: v for k, v in planned._asdict().items() if k != 'given'
    }
  return made_with


def write(
  wanted: request.Request,
  videos: ui8['n t h w 3'],
  records: list[dict[str, Any]],
  seeds: np.ndarray,
) -> None:
  """Writes videos and how they were made to the folder that was asked for.

  Args:
    wanted: what was asked for.
    videos: see `make_videos`.
    records: likewise.
    seeds: of the videos, [n].

  Raises:
    OSError: they cannot be written.
  """
  made_with = describe(wanted)
  if records:
    made_with['chain'] = records
  samples.write(
    wanted.out,
    videos,
    wanted.asked.cond['label'],
    wanted.run.label_names,
    seeds,
    wanted.made_rate,
    made_with,
    each=True,
    prompts=wanted.asked.captions,
  )
