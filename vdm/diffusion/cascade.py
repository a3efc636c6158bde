"""A small video, from which a second diffusion model makes a large one.

Cascades divide what is hard (Ho et al. 2021, arXiv:2106.15282; on video Imagen
Video, Ho et al. 2022, arXiv:2210.02303): one model makes small and short
videos, the next enlarge them in space or add frames. A network that enlarges is
told the small video, brought to its own grid:

  space  frames are enlarged bilinearly
  time   known frames are in their places, every `time`-th, and the frames
         between two of them blend these; what follows the last one repeats it.
         A channel says which share of each latent's frames is known: blends
         and known frames look alike where nothing moves

and encoded by the run's autoencoder, as what it is to make is.

In training the small video is made of the clip, by area averages, and in
sampling it is another model's, whose errors no clip has. So noise is added to
it, in latents, of a sigma that is drawn for each clip and told to the network
(noise conditioning augmentation):

  low = alpha enc(enlarge(small)) + sigma eps,     alpha^2 + sigma^2 = 1

Sampling chooses sigma: the more, the less of the small video is believed.

A network that enlarges in space can make what is missing alone (`residual`):

  z = gain (enc(x) - enc(enlarge(small))),

from which x follows, as the small video is known; what is wrong in that stays.

The small video is never left out. Guidance contrasts labels or captions, as in
those papers; a network that is never without it spends nothing on inventing
whole clips, and noise already leads from all of it to little of it.
"""

from collections.abc import Callable

from etils.array_types import Array, FloatArray, ui8
import jax
import jax.numpy as jnp
import numpy as np

from vdm.diffusion import losses
from vdm.diffusion import process

SMALL = 'small'  # The small video among the entries of clips.
# What bilinear enlargement from 64 to 128 px lacks has an RMS of 0.14 of the
# clips' deviation, in 24 real videos as in the synthetic scenes: with this
# factor that is about one.
GAIN = 8.0


def shrink(video: ui8['b t h w 3'], space: int, time: int) -> ui8['b s y x 3']:
  """Returns every `time`-th frame, averaged over squares of `space` px.

  It is the same function, to the bit, in NumPy and compiled: it works in
  integers.
  """
  b, t, h, w, c = video.shape
  if h % space or w % space or t % time:
    raise ValueError(
      f'{t} frames of {w}x{h} px cannot be made {space} times smaller and '
      f'{time} times fewer.'
    )
  video = video[:, ::time]
  if space == 1:
    return video
  shape = (b, t // time, h // space, space, w // space, space, c)
  area = space * space
  total = video.reshape(shape).sum((3, 5), dtype='uint32')
  return ((2 * total + area) // (2 * area)).astype('uint8')


def enlarge(small: ui8['b s y x 3'], space: int, time: int) -> ui8['b t h w 3']:
  """Returns a video as large as what is to be made; see the module."""
  b, s, y, x, c = small.shape
  video = jnp.asarray(small, jnp.float32)
  if time > 1:
    following = jnp.concatenate([video[:, 1:], video[:, -1:]], axis=1)
    share = (jnp.arange(time) / time).reshape(1, 1, time, 1, 1, 1)
    video = video[:, :, None] * (1 - share) + following[:, :, None] * share
    video = video.reshape(b, s * time, y, x, c)
  if space > 1:
    shape = (b, s * time, y * space, x * space, c)
    video = jax.image.resize(video, shape, 'bilinear')
  return jnp.round(video).astype(jnp.uint8)


def known(frames: int, time: int, grouped: int = 1) -> FloatArray[' t']:
  """Returns which share of the frames of each latent is known.

  Args:
    frames: of the large video.
    time: every so-many-th of them is known.
    grouped: frames of a latent.
  """
  shares = (np.arange(frames) % time == 0).astype(np.float32)
  return shares.reshape(-1, grouped).mean(1)


def missing(
  latents: FloatArray['b t h w c'],
  video: ui8['b t h w 3'],
  encode: Callable[..., FloatArray['b t h w c']],
  space: int,
  time: int,
) -> FloatArray['b t h w c']:
  """Returns what latents have beyond those of the enlarged small video.

  Args:
    latents: of the video.
    video: of which the small one is made.
    encode: see `tell`, like the rest.
    space: likewise.
    time: likewise.
  """
  low = encode(enlarge(shrink(video, space, time), space, time))
  return GAIN * (latents - low)


def completed(
  z: FloatArray['b t h w c'], low: FloatArray['b t h w c']
) -> FloatArray['b t h w c']:
  """Inverts `missing`."""
  return z / GAIN + low


def consistent(
  video: ui8['b t h w 3'], small: ui8['b t y x 3'], space: int
) -> ui8['b t h w 3']:
  """Returns the nearest video whose small version is the given one.

  But for what rounding and the range of pixels leave: a projection, which
  brings a video nearer to the truth (Wang et al. 2022, arXiv:2212.00490).

  Args:
    video: that was made.
    small: of what.
    space: how many times larger its frames are.
  """
  short = small.astype(jnp.int32) - shrink(video, space, 1).astype(jnp.int32)
  short = short.repeat(space, axis=2).repeat(space, axis=3)
  return jnp.clip(video + short, 0, 255).astype(jnp.uint8)


def with_known(
  latents: FloatArray['b t h w c'], frames: int, time: int
) -> FloatArray['b t h w d']:
  """Returns latents with a channel that says what is known, if it varies.

  Args:
    latents: of the enlarged video.
    frames: of that video.
    time: see `known`; with 1 every frame is, and there is no channel.
  """
  if time == 1:
    return latents
  shares = known(frames, time, frames // latents.shape[1])
  shape = (*latents.shape[:-1], 1)
  channel = jnp.broadcast_to(shares[None, :, None, None, None], shape)
  return jnp.concatenate([latents, channel.astype(latents.dtype)], axis=-1)


def tell(
  small: ui8['b s y x 3'],
  levels: FloatArray[' b'],
  keys: jax.Array,
  encode: Callable[..., FloatArray['b t h w c']],
  space: int,
  time: int,
) -> dict[str, Array['b ...']]:
  """Returns what a network is told of small videos, see `conditions`.

  Args:
    small: the videos.
    levels: log-SNR of the noise that is added, see `process`.
    keys: of the noise, one a video.
    encode: uint8 videos -> normalised latents.
    space: how many times larger frames become.
    time: how many times more.
  """
  video = enlarge(small, space, time)
  clean = encode(video)
  shape = clean.shape[:2]
  noisy = process.add_noise(
    clean,
    process.noise(keys, clean.shape),
    jnp.broadcast_to(levels[:, None], shape),
  )
  low = with_known(noisy, video.shape[1], time)
  return {'low': low, 'low_noise': levels}


def draw_levels(
  key: jax.Array, rows: int, noise: tuple[float, float]
) -> FloatArray[' b']:
  """Returns the level of each row's small video.

  Its sigma is uniform in the range, stratified over the rows.

  Args:
    key: of the step.
    rows: of the global batch.
    noise: range of sigma.
  """
  share = losses.stratified_uniform(key, jnp.ones(rows, bool), 1)[:, 0]
  sigma = noise[0] + (noise[1] - noise[0]) * share
  return process.level_of_sigma(sigma)
