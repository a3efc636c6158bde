"""What an autoencoder is trained with, one number an example.

Reductions are over everything but the first axis and in float32, so that the
caller decides how examples are averaged over accumulated parts and devices.
"""

import jax.numpy as jnp


def mean_per_example(x):
  """[b, ...] -> [b], float32."""
  return x.astype(jnp.float32).reshape(x.shape[0], -1).mean(axis=1)


def shrink(x, factor):
  """Area average: [..., h, w, c] -> [..., h / factor, w / factor, c]."""
  *leading, h, w, c = x.shape
  x = x.reshape(*leading, h // factor, factor, w // factor, factor, c)
  return x.mean(axis=(-4, -2))


def l1(x, y):
  """Mean absolute difference, [b]."""
  return mean_per_example(jnp.abs(difference(x, y)))


def l2(x, y):
  """Mean squared difference, [b]."""
  return mean_per_example(jnp.square(difference(x, y)))


def multiscale_l1(x, y, factors=(2, 4)):
  """Sum of the mean absolute differences of smaller copies, [b].

  Averages over larger areas weigh what an object's place and colour are
  against the texture inside it.
  """
  error = difference(x, y)
  return sum(mean_per_example(jnp.abs(shrink(error, f))) for f in factors)


def judged_real(fake):
  """What an autoencoder wants of a discriminator's logits, [b].

  Args:
    fake: logits of reconstructions [b, ...].
  """
  return -mean_per_example(fake)


def told_apart(real, fake):
  """The discriminator's hinge loss, [b]; 2 where it knows nothing.

  Args:
    real: its logits of frames [b, ...].
    fake: and of their reconstructions.
  """
  return mean_per_example(jnp.maximum(1 - real, 0)) + mean_per_example(
    jnp.maximum(1 + fake, 0)
  )


def kl(mean, logvar):
  """KL(N(mean, exp(logvar)) || N(0, 1)) per latent value, nats, [b]."""
  mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
  return mean_per_example(
    0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)
  )


def psnr(x, y):
  """Peak signal-to-noise ratio of videos in [-1, 1], dB, [b].

  Both are clipped to the range first, as they are when written to a file.
  """
  x, y = jnp.clip(x, -1.0, 1.0), jnp.clip(y, -1.0, 1.0)
  mse = mean_per_example(jnp.square(difference(x, y)))
  return 10.0 * jnp.log10(4.0 / jnp.maximum(mse, 1e-10))


def difference(x, y):
  return x.astype(jnp.float32) - y.astype(jnp.float32)
