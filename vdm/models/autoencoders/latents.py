"""Posterior samples, statistics and normalisation of latents.

Diffusion noises latents that have mean zero in every channel and, by default,
one common standard deviation, so that channels keep their share of the
variance; a deviation per channel is the alternative. The statistics are over
the data that the diffusion model is trained on, and are stored with the
autoencoder.
"""

from collections.abc import Iterable

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
import numpy as np

from vdm.models import layers

KINDS = ('shared', 'channel', 'none')
# Log-variance of latents without noise: exp of half of it is a deviation far
# below a grey level.
NO_NOISE = -30.0


def deterministic(
  z: FloatArray['b t h w c'],
) -> tuple[FloatArray['b t h w c'], FloatArray['b t h w c']]:
  """Returns the mean and log-variance of latents without noise."""
  return z, jnp.full_like(z, NO_NOISE)


def sample(
  mean: FloatArray['b t h w c'],
  logvar: FloatArray['b t h w c'],
  keys: jax.Array,
) -> FloatArray['b t h w c']:
  """Samples the posterior, with one key per row [b]."""
  eps = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
  noise = jnp.exp(0.5 * logvar.astype(jnp.float32)) * eps
  return mean + noise.astype(mean.dtype)


def statistics(
  batches: Iterable[FloatArray['*b c']], kind: str = 'shared'
) -> dict[str, FloatArray[' c']]:
  """Computes the mean and standard deviation of latents.

  Args:
    batches: mean latents, in batches of any size.
    kind: 'shared': the root of the variance averaged over channels, the same
      for all of them; 'channel': a deviation for each channel; 'none': mean 0
      and deviation 1, so that latents stay as they are.

  Returns:
    {'mean', 'scale'}, float32; accumulated in float64.
  """
  if kind not in KINDS:
    raise ValueError(
      f'autoencoder.scale is one of {", ".join(KINDS)}, not {kind!r}.'
    )
  count, total, square = 0, 0.0, 0.0
  for batch in batches:
    z = np.asarray(batch).astype(np.float64)
    if kind == 'none':
      ones = np.ones(z.shape[-1], np.float32)
      return {'mean': 0 * ones, 'scale': ones}
    z = z.reshape(-1, z.shape[-1])
    count += len(z)
    total = total + z.sum(axis=0)
    square = square + np.square(z).sum(axis=0)
  if count == 0:
    raise ValueError(
      'Statistics of latents need at least one clip: raise '
      'autoencoder.statistics_clips.'
    )
  mean = total / count
  variance = np.maximum(square / count - np.square(mean), 0.0)
  if kind == 'shared':
    variance = np.full_like(variance, variance.mean())
  # A constant channel is only shifted.
  scale = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
  return {'mean': mean.astype(np.float32), 'scale': scale.astype(np.float32)}


def normalise(
  z: FloatArray['*b c'], stats: dict[str, FloatArray[' c']]
) -> FloatArray['*b c']:
  """Maps latents from the autoencoder's scale to that of diffusion."""
  x = z.astype(jnp.float32)
  mean, scale = (layers.along_channels(stats[k], x) for k in ('mean', 'scale'))
  return ((x - mean) / scale).astype(z.dtype)


def denormalise(
  z: FloatArray['*b c'], stats: dict[str, FloatArray[' c']]
) -> FloatArray['*b c']:
  """Inverts `normalise`."""
  x = z.astype(jnp.float32)
  mean, scale = (layers.along_channels(stats[k], x) for k in ('mean', 'scale'))
  return (x * scale + mean).astype(z.dtype)
