"""Makes videos from a network's parameters; `trained` reads these.

Video i depends on its own seed, conditions and the settings alone, so that any
one of many can be made again by itself, whatever the batch size, up to float
rounding.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

from etils import epath
import jax
from ml_collections import ConfigDict
import numpy as np

from vdm.common import errors
from vdm.common import sizes
from vdm.config import cascade_rules
from vdm.config import condition_rules
from vdm.config import guidance_rules
from vdm.config import rules
from vdm.config import sampling
from vdm.config import token_rules
from vdm.diffusion import conditions
from vdm.diffusion import rollouts
from vdm.diffusion import schedules
from vdm.models import autoencoders
from vdm.sampling import batching
from vdm.sampling import by_windows
from vdm.sampling import coders
from vdm.sampling import denoised
from vdm.sampling import enlarged
from vdm.sampling import task_plan
from vdm.sampling import unmasked


class Worse(Protocol):
  """A network that is guided against: a `trained.Model`, or an `Average`."""

  config: ConfigDict  # The run's.
  params: dict[str, Any]
  step: int
  source: str


@dataclasses.dataclass
class Average:
  """An average of a network's parameters, as it is while the network trains."""

  config: ConfigDict
  params: dict[str, Any]
  step: int
  source: str


class Generator(NamedTuple):
  """The functions that make videos, each over any number of them.

  Attributes:
    samples: (params, frozen, cond, seeds [n], task, given) -> uint8
      [n t h w 3]. `cond` are the videos' conditions, as {'label': [n]}, see
      `conditions`; a network that enlarges takes 'small' among them. The last
      two may be left out: what `rollouts.Task` the videos are made for, and
      the pixels of its given frames, uint8 [n k h w 3]. These come back as
      decoded latents, like the other frames.
    reconstruct: (frozen, uint8 [n t h w 3]) -> the same, through the
      autoencoder.
  """

  samples: Callable[..., np.ndarray]
  reconstruct: Callable[..., np.ndarray]


def make_schedule(
  options: ConfigDict, codec: autoencoders.Autoencoder, stage: ConfigDict
) -> schedules.Schedule:
  """Returns a stage's noise schedule, shifted for the size of its latents.

  Args:
    options: `config.diffusion`.
    codec: the autoencoder.
    stage: the stage's config.
  """
  shape = coders.latent_shape(codec, stage.frames, sizes.of(stage))
  return schedules.make_schedule(
    options.schedule,
    logsnr_min=options.logsnr_min,
    logsnr_max=options.logsnr_max,
    shift=schedules.shift_for(*shape[:3], options.shift_base),
  )


def make_generator(
  config: ConfigDict,
  stage: ConfigDict,
  mesh: jax.sharding.Mesh | None = None,
  poll: Callable[[], None] = lambda: None,
  worse: Worse | None = None,
) -> Generator:
  """Returns the functions that make a stage's videos.

  Args:
    config: the run's; `config.sample` says how.
    stage: whose frames and size the videos have.
    mesh: devices to split the videos over; None: all rows on one device.
    poll: called after every window of every batch of videos; may raise.
    worse: a network that works in the same latents, to guide against it instead
      of the null condition; its parameters are read when videos are made.

  Raises:
    ValueError: the network cannot be guided as `config.sample` says; when
      samples are made, it was not trained for the task, or what is given is not
      of it.
  """
  for problem in _problems(config, stage, worse):
    raise ValueError(problem)
  codec = autoencoders.make_autoencoder(config.autoencoder)
  encode, decode = coders.make(config, codec)
  make_videos = by_windows.make(
    config,
    stage,
    codec,
    encode,
    decode,
    _window_maker(config, stage, codec, worse and worse.config),
    poll,
  )

  def samples(params, frozen, cond, seeds, task=rollouts.PLAIN, given=None):
    # The rate that videos are shown at, unless another is asked for.
    if 'frame_rate' in config.model.scalars and 'frame_rate' not in cond:
      rate = config.data.frame_rate / config.data.stride
      cond = {**cond, 'frame_rate': np.full(len(seeds), rate)}
    planned, windows = task_plan.make(config, stage, task)
    frames = codec.factor[0] * planned.frames
    for problem in (
      _given_problem(stage, task, len(seeds), given),
      enlarged.problem(config, stage, cond, frames),
    ):
      if problem:
        raise ValueError(problem)
    if cascade_rules.is_told(config.model):
      seeds = enlarged.own_seeds(seeds, stage)
    rows = [conditions.arrays(cond), np.asarray(seeds, np.uint32)]
    if task.given:
      rows.append(given)
    worse_params = worse.params if worse else {}
    make = functools.partial(
      make_videos, planned, windows, params, worse_params, frozen
    )
    return batching.apply(make, rows, config.sample.batch, mesh)

  def reconstructions(frozen, video):
    # As diffusion sees it: through the statistics and back.
    def reconstruct(video):
      return decode(frozen, encode(frozen, video))

    return batching.apply(
      reconstruct, (video,), config.sample.batch, mesh, poll
    )

  return Generator(samples, reconstructions)


def _problems(config, stage, worse) -> Iterator[str]:
  """Yields why a stage's videos cannot be made as `config.sample` says."""
  model, sample, against = config.model, config.sample, worse is not None
  if sample.autoguide and not against:
    yield (
      f'config.sample.autoguide={sample.autoguide} guides against an earlier '
      'average, which is not given: pass worse=model.worse, or set it to 0.'
    )
  yield from rules.few_steps_problems(stage, sample, against)
  yield from token_rules.sample_problems(stage, sample, worse and worse.config)
  yield from guidance_rules.problems(model, sample, against)
  yield from guidance_rules.given_problems(stage, sample)
  if sample.image_first and stage.frames > 1:
    yield from rules.image_first_problems(config, stage)


def _given_problem(stage, task, rows, given) -> str:
  """Returns why pixels are not those of a task's given frames, or ''.

  Args:
    stage: the stage's config.
    task: in frames.
    rows: number of videos.
    given: see `Generator`.
  """
  wanted = (rows, len(task.given), *sizes.of(stage), 3)
  if given is None or not given.size:
    if not task.given:
      return ''
    return (
      f'Frames {task.given} are given and their pixels are not: pass these as '
      f'given, of the shape {wanted}.'
    )
  if not task.given:
    return (
      'Pixels are given and the task does not say of which frames: pass a '
      'rollouts.Task with their indices, or leave given out.'
    )
  if given.shape == wanted:
    return ''
  return (
    f'Pixels of the given frames {task.given} of {rows} videos have the shape '
    f'{wanted}, and those passed as given have {given.shape}: pass every frame '
    'of every video.'
  )


def _window_maker(config, stage, codec, worse) -> Callable[..., Any]:
  """Returns what makes the latents of a window; see `vdm.sampling`."""
  if stage.objective == 'tokens':
    return unmasked.make_windows(config, codec, worse)
  schedule = make_schedule(config.diffusion, codec, stage)
  return denoised.make_windows(config, stage, codec, schedule, worse)


def change_sampler(options: ConfigDict, changes: dict[str, Any]) -> None:
  """Changes `config.sample` in place; eta is of ddim and not of others.

  Args:
    options: `config.sample`.
    changes: {key: value}; `guidance` may have scales by group, see
      `guidance_rules.change`.

  Raises:
    UsageError: `guidance` has neither, or eta is given and not of ddim.
  """
  changes = dict(changes)
  if 'guidance' in changes:
    guidance_rules.change(options, changes.pop('guidance'))
  options.update(changes)
  if options.method != 'ddim':
    if changes.get('eta'):
      raise errors.UsageError(
        f'eta={changes["eta"]:g} is of ddim, and the method is '
        f'{options.method}: leave it out, or choose ddim.'
      )
    options.eta = 0.0


def describe_samples(
  config: ConfigDict,
  source: epath.PathLike,
  step: int,
  worse: Worse | None = None,
) -> dict[str, Any]:
  """Returns what made samples, for their record.

  Args:
    config: the run's, `sample` as it was used.
    source: the run's folder, or what else the model was read from.
    step: global step of the checkpoint.
    worse: what they are guided against, if anything.
  """
  # What is guided against has a record of its own.
  left_out = {'num', 'batch', 'final', 'seed', 'captions', 'autoguide'}
  left_out |= {*sampling.others(config.sample.method)}
  for name in ('low_noise', 'guidance_by'):
    if not config.sample[name]:
      left_out.add(name)
  options = {k: v for k, v in config.sample.items() if k not in left_out}
  if worse is None:
    options['guidance'] = condition_rules.guidance_scale(
      config.model, options['guidance']
    )
  else:
    options['autoguide'] = {
      'run': str(worse.source),
      'step': int(worse.step),
      'ema': worse.config.sample.ema,
    }
  return {'run': str(source), 'step': int(step), **options}
