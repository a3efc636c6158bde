"""Given frames, and videos longer than those a network was trained on.

A video of n frames is made in windows of the t frames that the network knows.
Each holds at least `overlap` frames of the window before it (h) and makes the
others (m); the last one is moved back to end with the video.

    window 0    m m m m m m m m
    window 1            h h h h m m m m
    window 2                    h h h h m m m m

Frames that are given are held in every window they lie in: 0 for image to
video, a prefix for prediction, both ends for interpolation. A held frame stays
at one level through all steps, so that `samplers.sample` returns it bit-equal:
there is one sampler for all of it, and a window is one call.

What was made before is held with a little noise, sigma = `context_noise`: the
network then treats its errors as noise instead of continuing them, and they add
up more slowly (Chen et al. 2024, arXiv:2407.01392; 0.02 in Song et al. 2025,
arXiv:2502.06764, 0.1 in Hafner et al. 2025, arXiv:2509.24527). Its latents stay
what they were. Given frames have no such errors and are held clean, where
training has shown clean ones.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from etils.array_types import BoolArray, FloatArray
import jax.numpy as jnp
import numpy as np

from vdm.diffusion import guidance
from vdm.diffusion import process

# Sigma of frames that were made before. With densities of levels as the
# configurations have them, 0.1 is about the cleanest that `independent` draws
# often enough to learn; 0.02 it hardly ever draws.
CONTEXT_NOISE = 0.1


class Task(NamedTuple):
  """What videos are made from besides labels and seeds.

  Attributes:
    frames: of a video; 0: those that the network was trained on.
    given: indices of the frames that are given, ascending, from 0.
    overlap: frames of a window that the one before it made, at least; 0: half.
    context_noise: sigma at which these are held, in [0, 1); None: as `resolve`
      chooses.
    history_guidance: scale, see `guidance`; 1: none.
    history_noise: sigma of held frames in the term that it guides by: above
      that at which they are held it is the fractional variant.
  """

  frames: int = 0
  given: tuple[int, ...] = ()
  overlap: int = 0
  context_noise: float | None = None
  history_guidance: float = 1.0
  history_noise: float = 0.0


PLAIN = Task()  # As many frames as in training, and none of them given.


class Window(NamedTuple):
  """A window of a video.

  Attributes:
    start: its first frame, in the video.
    made: how many of its first frames are in the window before it.
    given: which of its frames are given.
    held: which are known when it is made: given, or in the window before it.
  """

  start: int
  made: int
  given: BoolArray[' t']
  held: BoolArray[' t']


def windows(
  frames: int, length: int, overlap: int, given: Sequence[int]
) -> list[Window]:
  """Returns the windows of a video, in the order in which they are made.

  Args:
    frames: of the video, at least `length`.
    length: of a window.
    overlap: see `Task`, in [1, length - 1] if there are several windows.
    given: see `Task`.
  """
  found, stop = [], 0
  while stop < frames:
    start = min(max(0, stop - overlap), frames - length)
    index = start + np.arange(length)
    is_given = np.isin(index, given)
    held = is_given | (index < stop)
    found.append(Window(start, stop - start, is_given, held))
    stop = start + length
  return found


def resolve(
  task: Task,
  length: int,
  frame_levels: Mapping[str, float],
  context_noise: float = 0.0,
) -> Task:
  """Checks a task against what a network was trained on, and fills it in.

  Args:
    task: to check.
    length: frames of the clips that the network was trained on.
    frame_levels: see `losses.draw_levels`.
    context_noise: likewise.

  Returns:
    The task with its number of frames, overlap and noise of the context: the
    largest that was trained, up to 0.1.

  Raises:
    ValueError: the network has never seen what the task asks for, or the task
      is impossible.
  """
  frames = task.frames or length
  independent = frame_levels.get('independent', 0.0) > 0
  largest = 1.0 if independent else context_noise
  noise = task.context_noise
  if noise is None:
    noise = min(CONTEXT_NOISE, largest)
  task = task._replace(
    frames=frames, overlap=task.overlap or length // 2, context_noise=noise
  )
  for problem in _problems(task, length):
    raise ValueError(problem)
  if not task.given and frames == length:
    if task.history_guidance != 1:
      raise ValueError(
        'History guidance guides by frames that are held, and there are none: '
        f'give some, or ask for more than {length} frames.'
      )
    return task
  if length == 1:
    raise ValueError(
      'The network was trained on single frames, which neither continue nor '
      'complete a video: take a checkpoint of a later stage.'
    )
  seen = independent or frame_levels.get('context', 0.0) > 0
  if task.given == (0,) and frames == length:
    seen = seen or frame_levels.get('first', 0.0) > 0
  if not seen:
    raise ValueError(
      'The network has never seen clips of which some frames are given: train '
      'it with config.stages.<name>.frame_levels.context above 0, such as 0.3.'
    )
  if noise > largest:
    raise ValueError(
      f'A context noise of {noise:g} is more than the {largest:g} that the '
      'network was trained on: lower it, or train with '
      'config.stages.<name>.context_noise or frame_levels.independent.'
    )
  if task.history_guidance != 1 and not independent:
    raise ValueError(
      'History guidance shows the network given frames that are pure noise, '
      'which it has never seen: train it with '
      'config.stages.<name>.frame_levels.independent above 0, such as 0.3.'
    )
  return task


def _problems(task, length):
  """Yields why a task is impossible, whatever the network was trained on."""
  frames, given = task.frames, task.given
  if frames < length:
    yield (
      f'{frames} frames are fewer than the {length} that the network was '
      f'trained on: make {length} and cut them.'
    )
  if frames > length > 1 and not 0 < task.overlap < length:
    yield (
      f'An overlap of {task.overlap} frames is none of 1 to {length - 1}: the '
      f'network sees {length} frames at once.'
    )
  for index in given:
    if not 0 <= index < frames:
      yield (
        f'Frame {index} cannot be given: the video has the frames 0 to '
        f'{frames - 1}.'
      )
  if list(given) != sorted(set(given)):
    yield (
      f'Frames {given} are given out of order: name each once, in ascending '
      'order.'
    )
  if len(set(given)) == frames:
    yield f'All {frames} frames are given: nothing is left to make.'
  for name in ('context_noise', 'history_noise'):
    if not 0 <= getattr(task, name) < 1:
      yield f'{name} is a sigma from 0 to below 1, not {getattr(task, name):g}.'
  if task.history_noise and task.history_guidance == 1:
    yield (
      f'History noise of {task.history_noise:g} is of history guidance, and a '
      'history guidance of 1 is none: leave the noise at 0, or ask for a '
      'guidance above 1.'
    )


def in_latents(task: Task, factor: int) -> Task:
  """Returns a task in latents that hold `factor` frames of a video each.

  Raises:
    ValueError: they do not divide the video or what is given of it, or that is
      out of order.
  """
  if factor == 1:
    return task
  given = sorted({index // factor for index in task.given})
  whole = [g * factor + i for g in given for i in range(factor)]
  if task.frames % factor:
    raise ValueError(
      f'A latent holds {factor} frames: ask for a multiple of {factor}, not '
      f'for {task.frames}.'
    )
  if whole != list(task.given):
    raise ValueError(
      f'A latent holds {factor} frames of a video, so that whole groups are '
      f'given, such as 0:{factor} or 0:{2 * factor}, in ascending order: '
      'single frames need a run whose autoencoder has time_factor=1.'
    )
  return task._replace(
    frames=task.frames // factor,
    given=tuple(given),
    overlap=-(-task.overlap // factor),
  )


def held_levels(
  task: Task, window: Window, frame_levels: Mapping[str, float]
) -> FloatArray['1 t']:
  """Returns the level at which each frame of a window is held, if it is.

  Args:
    task: see `resolve`.
    window: of it.
    frame_levels: of training; `context` and `first` have shown clean frames.
  """
  clean = any(frame_levels.get(kind, 0.0) > 0 for kind in ('context', 'first'))
  made = process.level_of_sigma(task.context_noise)
  given = process.CLEAN if clean else made
  return jnp.where(window.given[None], given, made)


def begin(
  noise: FloatArray['b t h w c'],
  known: FloatArray['b t h w c'],
  held: BoolArray['1 t'],
  levels: FloatArray['1 t'],
) -> FloatArray['b t h w c']:
  """Returns the state from which a window is sampled.

  Args:
    noise: standard normal.
    known: clean latents of the held frames, anything in the others.
    held: which those are.
    levels: at which they are held.
  """
  return jnp.where(
    process.per_frame(held, known),
    process.add_noise(known, noise, levels),
    noise,
  )


def history(
  scale: float,
  sigma: float,
  noise: FloatArray['b t h w c'],
  known: FloatArray['b t h w c'],
  held: BoolArray['1 t'],
  levels: FloatArray['1 t'],
  noisiest: FloatArray[''],
) -> guidance.History:
  """Returns the history guidance of a window.

  Args:
    scale: `Task.history_guidance`.
    sigma: `Task.history_noise`.
    noise: standard normal, not that of `begin`.
    known: see `begin`.
    held: likewise.
    levels: likewise.
    noisiest: level from which the sampler starts, which is pure noise to it.
  """
  partial = None
  if sigma:
    lower = jnp.minimum(levels, process.level_of_sigma(sigma))
    frames = process.add_noise(known, noise, lower)
    partial = guidance.replace_held(held, frames, lower)
  return guidance.History(
    scale, guidance.replace_held(held, noise, noisiest), partial
  )
