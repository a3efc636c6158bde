"""The scale on which diffusion sees an autoencoder's latents.

Diffusion noises latents that have mean zero in every channel and, by default,
one common deviation, so that channels keep their share of the variance; a
deviation a channel is the alternative. The statistics are over the data the
diffusion model is trained on and are stored with the autoencoder.
"""

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ('shared', 'channel')
# Log-variance of latents without noise: exp of half of it is a deviation far
# below a grey level.
CERTAIN = -30.0


def certain(z):
  """Mean and log-variance of latents that have no noise."""
  return z, jnp.full_like(z, CERTAIN)


def sample(mean, logvar, keys):
  """A sample of the posterior, row i of it from keys[i] alone."""
  eps = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
  noise = jnp.exp(0.5 * logvar.astype(jnp.float32)) * eps
  return mean + noise.astype(mean.dtype)


def statistics(batches, kind='shared'):
  """Mean and deviation of latents.

  Args:
    batches: iterable of mean latents [..., c], any number a batch.
    kind: 'shared', the root of the variance averaged over channels, the same
      for all of them; or 'channel', every channel its own.

  Returns:
    {'mean': [c], 'scale': [c]}, float32; accumulated in float64.
  """
  if kind not in KINDS:
    raise ValueError(
      f'autoencoder.scale is one of {", ".join(KINDS)}, not {kind!r}.'
    )
  count, total, square = 0, 0.0, 0.0
  for batch in batches:
    z = np.asarray(batch).astype(np.float64)
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
  # A channel that never changes is only shifted.
  scale = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
  return {'mean': mean.astype(np.float32), 'scale': scale.astype(np.float32)}


def normalise(z, stats):
  """[..., c] latents on the autoencoder's scale -> on diffusion's."""
  mean, scale = _align(stats, z.ndim)
  return ((z.astype(jnp.float32) - mean) / scale).astype(z.dtype)


def denormalise(z, stats):
  """Inverts `normalise`."""
  mean, scale = _align(stats, z.ndim)
  return (z.astype(jnp.float32) * scale + mean).astype(z.dtype)


def _align(stats, ndim):
  return (
    jnp.asarray(stats[name], jnp.float32).reshape((1,) * (ndim - 1) + (-1,))
    for name in ('mean', 'scale')
  )
