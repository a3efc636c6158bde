"""A KL autoencoder of single frames around a linear skip.

Encoder and decoder are principal components of patches (`pca`), which are
fitted and never trained, plus a convolutional branch that starts at zero:

  mean = B (p - m) / s + encoder(p),     x = m + s B^T z + decoder(z).

So training starts at the quality of PCA and only learns what neighbouring
patches and nonlinearity add. Posterior samples z = mean + exp(logvar / 2) eps
start with a deviation of a tenth of the latents'. The prior of the KL term is
N(0, 1), which fits because the components are divided by one common number
that makes a latent value's variance one. Its weight decides where the noise
settles, and so how small a component may be and still be kept, and how well
the decoder forgives the errors of a diffusion model.

Both branches work on patches, at the resolution of the latents: measured at
equal cost on a CPU, wide and coarse beat narrow and fine. The encoder may be
the smaller one: every step of diffusion pays for it. Norms act on single
places, so a latent depends on a neighbourhood, and neither on the rest of the
frame nor on other frames.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from vdm import models
from vdm.models import layers
from vdm.models.autoencoders import losses
from vdm.models.autoencoders import pca

# Log-variance that training starts from: a deviation of 0.1.
LOGVAR = -4.6


class Block(nnx.Module):
  """A residual block of a convolution and a projection that starts at zero."""

  def __init__(self, channels, *, rngs):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.conv = layers.Conv(channels, channels, rngs=rngs)
    self.out = layers.Conv(channels, channels, 1, rngs=rngs, init_scale=0.0)

  def __call__(self, x):
    scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
    y = jax.nn.silu(layers.rms_norm(x, scale))
    return x + self.out(jax.nn.silu(self.conv(y)))


class Branch(nnx.Module):
  """Residual blocks between two convolutions, the last of them zero."""

  def __init__(self, cin, cout, width, blocks, *, rngs):
    self.stem = layers.Conv(cin, width, rngs=rngs)
    self.names = tuple(f'block_{i:02d}' for i in range(blocks))
    for name in self.names:
      setattr(self, name, Block(width, rngs=rngs))
    self.head = layers.Conv(width, cout, rngs=rngs, init_scale=0.0)

  def __call__(self, x):
    x = self.stem(x)
    for name in self.names:
      x = getattr(self, name)(x)
    return self.head(jax.nn.silu(x))


def make(factor, channels, *, encoder, decoder):
  """Returns (init, encode, decode) over {'pca', 'encoder', 'decoder'}.

  Args:
    factor: spatial reduction, 4 or 8.
    channels: of a latent.
    encoder: (width, residual blocks) of its branch.
    decoder: the same of the other.
  """
  if factor not in (4, 8):
    raise ValueError(f'autoencoder.factor is 4 or 8, not {factor}.')
  patch = 3 * factor**2

  def build_encoder(key):
    rngs = nnx.Rngs(params=key)
    return Branch(patch, 2 * channels, *encoder, rngs=rngs)

  def build_decoder(key):
    rngs = nnx.Rngs(params=key)
    return Branch(channels, patch, *decoder, rngs=rngs)

  encoder_net = models.functional(build_encoder)
  decoder_net = models.functional(build_decoder)

  def init(key, clips):
    key_encoder, key_decoder = jax.random.split(key)
    components = pca.fit(clips, factor, channels)
    return {
      'pca': jax.tree.map(jnp.asarray, components),
      'encoder': encoder_net.init(key_encoder),
      'decoder': decoder_net.init(key_decoder),
    }

  def encode(params, x):
    linear = pca.encode(jax.lax.stop_gradient(params['pca']), x, factor)
    branch = encoder_net.apply(params['encoder'], pca.space_to_depth(x, factor))
    mean, logvar = jnp.split(branch, 2, axis=-1)
    return linear + mean, LOGVAR + logvar

  def decode(params, z):
    linear = pca.decode(jax.lax.stop_gradient(params['pca']), z, factor)
    branch = decoder_net.apply(params['decoder'], z)
    return linear + pca.depth_to_space(branch, factor)

  return init, encode, decode


def make_loss(encode, decode, *, kl_weight, multiscale_weight):
  """Returns the training loss over one batch of clips."""

  def loss(params, x, keys):
    mean, logvar = encode(params, x)
    z = sample(mean, logvar, keys)
    reconstruction = decode(params, z)
    parts = {
      'l1': losses.l1(reconstruction, x),
      'multiscale': losses.multiscale_l1(reconstruction, x),
      'kl': losses.kl(mean, logvar),
    }
    total = (
      parts['l1']
      + multiscale_weight * parts['multiscale']
      + kl_weight * parts['kl']
    )
    return total, parts

  return loss


def sample(mean, logvar, keys):
  """A posterior sample, row i of it from keys[i] alone."""
  eps = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
  noise = jnp.exp(0.5 * logvar.astype(jnp.float32)) * eps
  return mean + noise.astype(mean.dtype)
