"""Given frames, and more frames than trained, as a network makes them."""

from ml_collections import ConfigDict

from vdm.common import sizes
from vdm.config import token_rules
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.sampling import coders


def make(
  config: ConfigDict, stage: ConfigDict, task: rollouts.Task
) -> tuple[rollouts.Task, list[rollouts.Window]]:
  """Returns what a task means for a stage's network, in latent frames.

  Args:
    config: the run's.
    stage: whose videos are made.
    task: what of them is made, in frames.

  Returns:
    (task, windows): both in latent frames.

  Raises:
    ValueError: it is impossible, or not what the network was trained for.
  """
  codec = autoencoders.make_autoencoder(config.autoencoder)
  length = coders.latent_shape(codec, stage.frames, sizes.of(stage))[0]
  if stage.objective == 'consistency' and task.history_guidance != 1:
    raise ValueError(
      'A consistency model cannot be guided by held frames: leave the history '
      'guidance at 1.'
    )
  if stage.objective == 'tokens':
    for problem in token_rules.task_problems(
      task.history_guidance, task.context_noise
    ):
      raise ValueError(problem)
    task = task._replace(context_noise=0.0)
  task = rollouts.resolve(
    rollouts.in_latents(task, codec.factor[0]),
    length,
    stage.frame_levels.to_dict(),
    stage.context_noise,
  )
  found = rollouts.windows(task.frames, length, task.overlap, task.given)
  time = config.model.low.time_factor
  if any(window.start * codec.factor[0] % time for window in found):
    raise ValueError(
      'A window cannot begin between two known frames: ask for a number of '
      f'--frames and an --overlap that are multiples of {time}.'
    )
  return task, found


def trained(config: ConfigDict, stage: ConfigDict) -> dict[str, rollouts.Task]:
  """Returns the tasks with given frames that a stage trains, by their names.

  They are those with clean frames, which previews and scores show.
  """
  codec = autoencoders.make_autoencoder(config.autoencoder)
  factor = codec.factor[0]
  t = stage.frames // factor
  if t < 3:
    return {}
  tasks = {}
  if stage.frame_levels.first:
    tasks['image_to_video'] = rollouts.Task(given=(0,))
  if stage.frame_levels.context:
    first, last = range(factor), range((t - 1) * factor, t * factor)
    # A quarter, and as many frames as show a motion.
    known = max(factor * (t // 4), factor * -(-2 // factor))
    tasks['prediction'] = rollouts.Task(given=tuple(range(known)))
    tasks['interpolation'] = rollouts.Task(given=(*first, *last))
  return tasks
