"""A convolutional autoencoder around a linear skip, with KL or FSQ bottleneck.

Encoder and decoder are principal components of patches (`pca`), which are
fitted and never trained, plus a convolutional branch that starts at zero:

  mean = B (p - m) / s + encoder(p),     x = m + s B^T z + decoder(z).

So training starts at the quality of PCA and only learns what neighbouring
patches and nonlinearity add. The log-variance of posterior samples, z = mean +
exp(logvar / 2) eps, starts at one value for all of them. The prior of the KL
term is N(0, 1), which fits because the components are divided by one common
number that makes a latent value's variance one. Its weight decides where the
noise settles, and so how small a component may be and still be kept, and how
well the decoder forgives the errors of a diffusion model.

With a bottleneck of finite scalars (`fsq`) a component is divided by its own
deviation first, so that every channel uses its levels, and the decoder's
linear part gives each channel the multiple of its value that fits best:
a = E[z q] / E[q^2]. There is no noise and no prior then.

Both branches work on patches, at the resolution of the latents: measured at
equal cost on a CPU, wide and coarse beat narrow and fine. The encoder may be
the smaller one: every step of diffusion pays for it. Norms act on single
places, so a latent depends on a neighbourhood, and neither on the rest of the
frame nor on other frames. The decoder may look at the frames before and after
(`temporal`), against shimmer where nothing moves: latents stay those of single
frames, and single frames decode as if it did not.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from vdm import models
from vdm.models import layers
from vdm.models.autoencoders import discriminator
from vdm.models.autoencoders import fsq
from vdm.models.autoencoders import latents
from vdm.models.autoencoders import losses
from vdm.models.autoencoders import pca

# What is fitted and never trained, and what sees other frames: patterns over
# the paths of the parameters.
FITTED, TEMPORAL = r'^(pca|grid)/', r'/time/'


class Block(nnx.Module):
  """A residual block of a convolution and a projection that starts at zero."""

  def __init__(self, channels, temporal, *, rngs):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.conv = layers.Conv(channels, channels, rngs=rngs)
    self.out = layers.Conv(channels, channels, 1, rngs=rngs, init_scale=0.0)
    self.time = (
      layers.TemporalConv(channels, channels, rngs=rngs, init_scale=0.0)
      if temporal
      else None
    )

  def __call__(self, x):
    scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
    y = jax.nn.silu(layers.rms_norm(x, scale))
    x = x + self.out(jax.nn.silu(self.conv(y)))
    if self.time is not None and x.shape[1] > 1:
      x = x + self.time(y)
    return x


class Branch(nnx.Module):
  """Residual blocks between two convolutions, the last of them zero."""

  def __init__(self, cin, cout, width, blocks, temporal=False, *, rngs):
    self.stem = layers.Conv(cin, width, rngs=rngs)
    self.names = tuple(f'block_{i:02d}' for i in range(blocks))
    for name in self.names:
      setattr(self, name, Block(width, temporal, rngs=rngs))
    self.head = layers.Conv(width, cout, rngs=rngs, init_scale=0.0)

  def __call__(self, x):
    x = self.stem(x)
    for name in self.names:
      x = getattr(self, name)(x)
    return self.head(jax.nn.silu(x))


def make(
  factor, channels, *, encoder, decoder, logvar=-4.6, temporal=False, levels=()
):
  """Returns (init, encode, decode) over {'pca', 'encoder', 'decoder'}.

  Args:
    factor: spatial reduction, 4 or 8.
    channels: of a latent.
    encoder: (width, residual blocks) of its branch.
    decoder: the same of the other.
    logvar: that training starts from.
    temporal: whether the decoder's blocks look at neighbouring frames.
    levels: values that each channel may take; () for a KL bottleneck. With
      levels the parameters have a 'grid', too.
  """
  if factor not in (4, 8):
    raise ValueError(f'autoencoder.factor is 4 or 8, not {factor}.')
  patch = 3 * factor**2
  moments = channels if levels else 2 * channels

  def build_encoder(key):
    rngs = nnx.Rngs(params=key)
    return Branch(patch, moments, *encoder, rngs=rngs)

  def build_decoder(key):
    rngs = nnx.Rngs(params=key)
    return Branch(channels, patch, *decoder, temporal, rngs=rngs)

  encoder_net = models.functional(build_encoder)
  decoder_net = models.functional(build_decoder)

  def init(key, clips):
    key_encoder, key_decoder = jax.random.split(key)
    components = pca.fit(clips, factor, channels)
    params = {
      'pca': jax.tree.map(jnp.asarray, components),
      'encoder': encoder_net.init(key_encoder),
      'decoder': decoder_net.init(key_decoder),
    }
    if levels:
      params['grid'] = fit_grid(params['pca'], clips, factor, levels)
    return params

  def encode(params, x):
    linear = pca.encode(jax.lax.stop_gradient(params['pca']), x, factor)
    branch = encoder_net.apply(params['encoder'], pca.space_to_depth(x, factor))
    if levels:
      gain = jax.lax.stop_gradient(params['grid']['gain'])
      z = linear * layers.along_channels(gain, linear) + branch
      return latents.certain(fsq.quantise(z, levels))
    mean, change = jnp.split(branch, 2, axis=-1)
    return linear + mean, logvar + change

  def decode(params, z):
    scaled = z
    if levels:
      value = jax.lax.stop_gradient(params['grid']['value'])
      scaled = z * layers.along_channels(value, z)
    linear = pca.decode(jax.lax.stop_gradient(params['pca']), scaled, factor)
    branch = decoder_net.apply(params['decoder'], z)
    return linear + pca.depth_to_space(branch, factor)

  return init, encode, decode


def fit_grid(components, clips, factor, levels):
  """Fits what lies between principal components and the grid.

  Args:
    components: of `pca.fit`.
    clips: float [n, t, h, w, 3] in [-1, 1].
    factor: of the components.
    levels: see `make`.

  Returns:
    {'gain': [c], what a component is multiplied by before it is quantised, so
    that its deviation is one; 'value': [c], what the quantised value is
    multiplied by to come nearest to the component}, float32.
  """
  z = jnp.concatenate(
    [
      pca.encode(components, jnp.asarray(clip, jnp.float32), factor).reshape(
        -1, len(levels)
      )
      for clip in clips
    ]
  )
  deviation = z.std(axis=0)
  gain = jnp.where(deviation > 1e-6, 1.0 / jnp.maximum(deviation, 1e-6), 1.0)
  q = fsq.quantise(z * gain[None], levels)
  square = jnp.maximum(jnp.square(q).mean(axis=0), 1e-12)
  return {'gain': gain, 'value': (z * q).mean(axis=0) / square}


def make_loss(encode, decode, *, quantised, weights, discriminate=None):
  """Returns the training loss over one batch of clips.

  Args:
    encode: (params, x) -> mean, log-variance.
    decode: (params, z) -> x.
    quantised: whether latents are codes, without noise or prior.
    weights: {'l1', 'l2', 'multiscale', 'kl', 'equivariance', 'adversarial':
      weight}; a term without weight is not computed.
    discriminate: (parameters, x) -> logits, for 'adversarial'; its own loss,
      'discriminator', is added.
  """
  weights = {
    name: weight
    for name, weight in weights.items()
    if weight and not (quantised and name == 'kl')
  }
  if 'adversarial' in weights:
    weights['discriminator'] = 1.0

  def loss(params, x, keys):
    mean, logvar = encode(params, x)
    z = mean if quantised else latents.sample(mean, logvar, keys)
    y = decode(params, z)
    terms = {
      'l1': lambda: losses.l1(y, x),
      'l2': lambda: losses.l2(y, x),
      'multiscale': lambda: losses.multiscale_l1(y, x),
      'kl': lambda: losses.kl(mean, logvar),
      'equivariance': lambda: losses.l1(
        decode(params, losses.shrink(z, 2)), losses.shrink(x, 2)
      ),
      # Each sees the other as a constant: see `discriminator.py`.
      'adversarial': lambda: losses.judged_real(
        discriminate(jax.lax.stop_gradient(params[discriminator.NAME]), y)
      ),
      'discriminator': lambda: losses.told_apart(
        discriminate(params[discriminator.NAME], x),
        discriminate(params[discriminator.NAME], jax.lax.stop_gradient(y)),
      ),
    }
    parts = {name: terms[name]() for name in weights}
    return sum(weights[name] * parts[name] for name in weights), parts

  return loss
