"""Errors of single denoising steps, of clips as they are and in other company.

A denoiser of videos has four sources: the noisy frame, the frames around it,
the label, and what it has learned of such clips. Each is taken away in turn,
and the error says what it was worth. Errors are shares of the mean square of
the clean latents, so that x0 = 0 has an error of 1, of one noise for all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from etils.array_types import Array, FloatArray
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from vdm.diffusion import process
from vdm.metrics import linear_denoiser
from vdm.models import autoencoders
from vdm.sampling import batching
from vdm.sampling import denoised


class Clips(NamedTuple):
  """Clips to denoise.

  Attributes:
    latents: as diffusion sees them.
    cond: the conditions of the clips.
    noise: of each.
  """

  latents: FloatArray['n t h w c']
  cond: dict[str, Array['n ...']]
  noise: FloatArray['n t h w c']


def make_clips(
  latents: FloatArray['n t h w c'], cond: dict[str, Array['n ...']]
) -> Clips:
  """Returns the clips with noise that depends on their number alone."""
  keys = jax.vmap(jax.random.key)(np.arange(len(latents), dtype=np.uint32))
  noise = np.asarray(process.noise(keys, latents.shape))
  return Clips(np.asarray(latents), cond, noise)


def make(
  config: ConfigDict,
) -> Callable[..., FloatArray['n t h w c']]:
  """Returns (params, clips, log-SNR) -> the network's x0 of noised clips."""
  codec = autoencoders.make_autoencoder(config.autoencoder)
  network = denoised.make_denoiser(config, codec)

  @jax.jit
  def step(params, x, noise, cond, level):
    levels = jnp.full(x.shape[:2], level)
    z = process.add_noise(x, noise, levels)
    return network(params, z, levels, cond)

  def denoise(params, clips, level):
    return batching.apply(
      lambda *rows: step(params, *rows, np.float32(level)),
      (clips.latents, clips.noise, clips.cond),
      config.sample.batch,
    )

  return denoise


def noised(clips: Clips, level: float) -> FloatArray['n t h w c']:
  """Returns z of clips at a log-SNR."""
  levels = np.full(clips.latents.shape[:2], level, np.float32)
  return np.asarray(process.add_noise(clips.latents, clips.noise, levels))


def error(
  x0: FloatArray['n t h w c'], clean: FloatArray['n t h w c']
) -> FloatArray[' t']:
  """Returns the error of each frame, over the mean square of all frames."""
  wrong = np.square(np.asarray(x0, np.float64) - clean).mean(axis=(0, 2, 3, 4))
  return wrong / max(np.square(clean, dtype=np.float64).mean(), 1e-30)


def among_strangers(clips: Clips) -> Clips:
  """Puts the middle frame of every clip among another clip's frames."""
  middle = clips.latents.shape[1] // 2

  def swap(x):
    x, own = np.roll(x, 1, axis=0), x[:, middle]
    x[:, middle] = own
    return x

  return clips._replace(latents=swap(clips.latents), noise=swap(clips.noise))


def with_wrong_labels(clips: Clips, classes: int) -> Clips:
  """Gives every clip one of the other labels, all of them in turn."""
  labels = clips.cond['label']
  shift = 1 + np.arange(len(labels), dtype=np.int32) % max(classes - 1, 1)
  wrong = (labels + shift) % classes
  return clips._replace(cond=clips.cond | {'label': wrong})


def without_labels(clips: Clips) -> Clips:
  """Gives every clip the null label."""
  null = np.full_like(clips.cond['label'], -1)
  return clips._replace(cond=clips.cond | {'label': null})


def compare(
  denoise: Callable[..., Any],
  params: dict[str, Any],
  clips: Clips,
  level: float,
  x0: FloatArray['n t h w c'] | None = None,
  *,
  classes: int,
  linear: linear_denoiser.Linear,
) -> dict[str, float]:
  """Returns the errors at one noise level, by what the network was given.

  Args:
    denoise: see `make`.
    params: of the network.
    clips: held out.
    level: log-SNR.
    x0: what the network makes of the clips, where that is known already.
    classes: number of labels; 0 for a network without.
    linear: the linear denoiser of training clips.

  Returns:
    'error', of the network as it was trained; 'first_frame' and 'last_frame'
    of that; 'linear' and 'identity', of x0 = z / alpha; of the middle frames,
    'own_frames' and 'strangers'; and with labels 'no_label' and 'wrong_label'.
  """
  clean = clips.latents
  if x0 is None:
    x0 = denoise(params, clips, level)
  frames, z = error(x0, clean), noised(clips, level)
  flat = linear_denoiser.denoise(linear, z.reshape(len(z), -1), level)
  power = np.square(clean, dtype=np.float64).mean()
  errors = {
    'error': frames.mean(),
    'first_frame': frames[0],
    'last_frame': frames[-1],
    'linear': error(flat.reshape(clean.shape), clean).mean(),
    'identity': np.exp(-level) * np.square(clips.noise).mean() / power,
  }
  if clean.shape[1] > 1:
    middle = clean.shape[1] // 2
    found = denoise(params, among_strangers(clips), level)
    errors['own_frames'] = frames[middle]
    wrong = np.square(found[:, middle] - clean[:, middle]).mean()
    errors['strangers'] = wrong / power
  if classes > 1:
    others = {
      'no_label': without_labels(clips),
      'wrong_label': with_wrong_labels(clips, classes),
    }
    for name, changed in others.items():
      errors[name] = error(denoise(params, changed, level), clean).mean()
  return {name: float(value) for name, value in errors.items()}
