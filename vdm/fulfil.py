"""Makes what was requested, and writes it with how it was made."""

from typing import Any

from etils.array_types import ui8
import numpy as np

from vdm import chain
from vdm import generate
from vdm import request as requests
from vdm.media import samples
from vdm.sampling import task_plan


def make_videos(
  request: requests.Request,
  generators: chain.Generators,
  seeds: np.ndarray,
) -> tuple[ui8['n t h w 3'], list[dict[str, Any]]]:
  """Returns the videos, and what the models after the first one did.

  Args:
    request: what is asked for.
    generators: of the models, see `chain.Generators`.
    seeds: of the videos, [n].
  """
  run, asked, num = request.run, request.asked, len(seeds)

  def for_all(given):
    frames = given.frames
    return np.resize(frames, (num, *frames.shape[1:]))

  scalars = {name: np.full(num, x) for name, x in request.scalars.items()}
  cond = asked.cond | scalars
  if request.low:
    cond['small'] = for_all(request.low)
  given = for_all(request.given) if request.given else None
  videos = generators(run, request.windows).samples(
    run.params, run.frozen, cond, seeds, request.task, given
  )
  labels = asked.cond['label']
  return chain.make(
    request.chain,
    videos,
    labels,
    run.label_names,
    asked.captions,
    seeds,
    generators,
  )


def describe(request: requests.Request) -> dict[str, Any]:
  """Returns what made the samples, for samples.json."""
  run, options = request.run, request.options
  num = len(request.asked.cond['label'])
  made_with = generate.describe_samples(
    run.config, run.source, run.step, run.worse
  )
  if options.image_model:
    made_with['image_model'] = options.image_model
  if request.scalars:
    made_with['scalars'] = request.scalars
  if request.given:
    from vdm.preparation import given_frames  # It takes OpenCV.

    made_with['given'] = given_frames.describe(
      request.given, options.given, request.task.given, num
    )
  if request.low:
    from vdm.preparation import given_frames  # It takes OpenCV.

    made_with['low_noise'] = run.config.sample.low_noise
    made_with['low'] = given_frames.describe_small(
      request.low, options.low, num
    )
  if request.given or request.windows > 1:
    planned, _ = task_plan.make(run.config, run.stage, request.task)
    made_with['task'] = {
      k: v for k, v in planned._asdict().items() if k != 'given'
    }
  return made_with


def write(
  request: requests.Request,
  videos: ui8['n t h w 3'],
  records: list[dict[str, Any]],
  seeds: np.ndarray,
) -> None:
  """Writes videos and how they were made to the folder that was asked for.

  Args:
    request: what was asked for.
    videos: see `make_videos`.
    records: likewise.
    seeds: of the videos, [n].

  Raises:
    OSError: they cannot be written.
  """
  made_with = describe(request)
  if records:
    made_with['chain'] = records
  samples.write(
    request.out,
    videos,
    request.asked.cond['label'],
    request.run.label_names,
    seeds,
    request.made_rate,
    made_with,
    each=True,
    prompts=request.asked.captions,
  )
