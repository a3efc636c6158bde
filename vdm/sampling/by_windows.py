"""Videos made window by window, whichever kind of network makes a window.

What is known of a window is carried over from the one before it or given; the
rest is made from what is known, and the window's new frames are decoded.
"""

from collections.abc import Callable
import functools

from etils.array_types import BoolArray, FloatArray, ui8
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm.common import sizes
from vdm.diffusion import rollouts
from vdm.models import autoencoders
from vdm.multihost import arrays
from vdm.sampling import coders
from vdm.sampling import enlarged

IMAGE = -1  # Number of the window that is an image, see `sample.image_first`.


def make(
  config: ConfigDict,
  stage: ConfigDict,
  codec: autoencoders.Autoencoder,
  encode: Callable[..., FloatArray['n t h w c']],
  decode: Callable[..., ui8['n t h w 3']],
  make_window: Callable[..., FloatArray['n t h w c']],
  poll: Callable[[], None],
) -> Callable[..., ui8['n t h w 3']]:
  """Returns the function that makes a batch of videos.

  Only one window at a time is on the devices.

  Args:
    config: the run's.
    stage: the stage's.
    codec: the autoencoder.
    encode: see `coders.make`.
    decode: likewise.
    make_window: see the room.
    poll: called after every window; may raise.

  Returns:
    (task, windows, params, worse_params, frozen, cond, seeds, *given) ->
    videos. The task and its windows are in latent frames, see `task_plan`;
    `given` are the pixels of the given frames, if there are any.
  """
  tell = enlarged.make_teller(config, encode)
  encode_made, decode_made = enlarged.make_coders(config, encode, decode)
  shape = coders.latent_shape(codec, stage.frames, sizes.of(stage))
  index = np.arange(shape[0])
  factor, time = codec.factor[0], config.model.low.time_factor
  image_first = config.sample.image_first and stage.frames > 1

  def make_videos(
    task, windows, params, worse_params, frozen, cond, seeds, *given
  ):
    run = functools.partial(make_window, task)
    z, pixels, start = np.zeros((len(seeds), *shape), np.float32), [], 0
    if image_first and not windows[0].held.any():
      free = np.zeros(1, bool)
      image = rollouts.Window(start=0, made=0, given=free, held=free)
      image = run(image, params, worse_params, cond, seeds, IMAGE, z[:, :1])
      z = jnp.concatenate([image, z[:, 1:]], axis=1)
      windows = [windows[0]._replace(held=index == 0), *windows[1:]]
    for number, window in enumerate(windows):
      entering = window.given & (index >= window.made)
      frames = z
      if entering.any():
        frames = encode_made(frozen, _entering(task, window, factor, given[0]))
      if window.held.any():
        z = _carry(z, window.start - start, entering, frames)
      whole = window._replace(start=window.start * factor)
      told = enlarged.of_window(cond, whole, stage.frames, time)
      if not window.held.all():
        seen = tell(frozen, told, seeds, number)
        z = run(window, params, worse_params, seen, seeds, number, z)
      video = arrays.to_host(decode_made(frozen, z, told))
      pixels.append(video[:, window.made * factor :])
      start = window.start
      poll()
    return np.concatenate(pixels, axis=1)

  return make_videos


def _entering(
  task: rollouts.Task,
  window: rollouts.Window,
  factor: int,
  given: ui8['n k h w 3'],
) -> ui8['n t h w 3']:
  """Returns given pixels in their places of a window, any pixels elsewhere."""
  index = window.start + np.arange(len(window.held))
  place = np.searchsorted(task.given, index)
  place = np.minimum(place, len(task.given) - 1)[:, None] * factor
  return given[:, (place + np.arange(factor)).ravel()]


@jax.jit
def _carry(
  before: FloatArray['n t h w c'],
  shift: int,
  entering: BoolArray[' t'],
  given: FloatArray['n t h w c'],
) -> FloatArray['n t h w c']:
  """Returns a window's latents with what was made before it, or is given."""
  known = jnp.roll(before, -shift, axis=1)
  return jnp.where(entering[None, :, None, None, None], given, known)
