"""Losses of autoencoders, one number per example.

Reductions are in float32 over all axes but the first; the caller averages over
examples, accumulated parts and devices.
"""

from collections.abc import Sequence

from etils.array_types import FloatArray
import jax.numpy as jnp

from vdm.models import layers


def mean_per_example(x: FloatArray['b ...']) -> FloatArray[' b']:
  """Returns the mean over all axes but the first, in float32."""
  return x.astype(jnp.float32).reshape(x.shape[0], -1).mean(axis=1)


def l1(x: FloatArray['b ...'], y: FloatArray['b ...']) -> FloatArray[' b']:
  """Returns the mean absolute difference."""
  return mean_per_example(jnp.abs(_difference(x, y)))


def l2(x: FloatArray['b ...'], y: FloatArray['b ...']) -> FloatArray[' b']:
  """Returns the mean squared difference."""
  return mean_per_example(jnp.square(_difference(x, y)))


def multiscale_l1(
  x: FloatArray['b t h w c'],
  y: FloatArray['b t h w c'],
  factors: Sequence[int] = (2, 4),
) -> FloatArray[' b']:
  """Returns the sum of the mean absolute differences of smaller copies.

  Averages over larger areas give the position and colour of objects more weight
  than the texture inside them.
  """
  error = _difference(x, y)
  return sum(
    mean_per_example(jnp.abs(layers.shrink(error, f))) for f in factors
  )


def generator_hinge(fake: FloatArray['b ...']) -> FloatArray[' b']:
  """Returns the generator's hinge loss from the logits of reconstructions."""
  return -mean_per_example(fake)


def discriminator_hinge(
  real: FloatArray['b ...'], fake: FloatArray['b ...']
) -> FloatArray[' b']:
  """Returns the discriminator's hinge loss, which is 2 for logits of zero.

  Args:
    real: logits of frames.
    fake: logits of their reconstructions.
  """
  return mean_per_example(jnp.maximum(1 - real, 0)) + mean_per_example(
    jnp.maximum(1 + fake, 0)
  )


def kl(
  mean: FloatArray['b ...'], logvar: FloatArray['b ...']
) -> FloatArray[' b']:
  """Returns KL(N(mean, exp(logvar)) || N(0, 1)) per latent value, in nats."""
  mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
  return mean_per_example(
    0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)
  )


def psnr(x: FloatArray['b ...'], y: FloatArray['b ...']) -> FloatArray[' b']:
  """Returns the peak signal-to-noise ratio of videos in [-1, 1], in dB.

  Both are clipped to the range first, as when they are written to a file.
  """
  x, y = jnp.clip(x, -1.0, 1.0), jnp.clip(y, -1.0, 1.0)
  mse = mean_per_example(jnp.square(_difference(x, y)))
  return 10.0 * jnp.log10(4.0 / jnp.maximum(mse, 1e-10))


def _difference(x, y):
  return x.astype(jnp.float32) - y.astype(jnp.float32)
