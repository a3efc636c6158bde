"""A convolutional autoencoder around a linear skip, with KL or FSQ bottleneck.

Encoder and decoder are principal components of patches (`pca`), which are
fitted and never trained, plus a convolutional branch that starts at zero:

  mean = B (p - m) / s + encoder(p),     x = m + s B^T z + decoder(z).

So training starts at the quality of PCA and learns what neighbouring patches
and nonlinearity add. The log-variance of posterior samples, z = mean +
exp(logvar / 2) eps, starts at one value for all of them. The prior of the KL
term is N(0, 1), which fits because the components are divided by one common
number that makes the variance of latent values one. The weight of the term
determines the final noise, and so how small a component can be and still be
encoded, and how robust the decoder is to the errors of a diffusion model.

With a bottleneck of finite scalars (`fsq`) each component is first multiplied
by a gain, and the linear part of the decoder multiplies each channel by the
factor that fits best: a = E[z q] / E[q^2]. The gain is fitted, too: components
have heavy tails, a flat patch beside an edge, which the bound would cut off if
their standard deviation were one. There is no noise and no prior then.

Both branches work on patches, at the resolution of the latents: measured at
equal cost on a CPU, wide and coarse is better than narrow and fine. The encoder
can be smaller: every step of diffusion pays for it. Norms act on single
positions, so a latent depends on a neighbourhood, and not on the rest of the
frame or on other frames. The decoder can use the frames before and after
(`temporal`) to reduce shimmer in static regions: latents are still those of
single frames, and decoding a single frame is not affected.
"""

from collections.abc import Callable, Sequence
from typing import Any

from etils.array_types import FloatArray
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

# Patterns of the paths of parameters: those that are fitted and never trained,
# and those that single frames do not use.
FITTED, TEMPORAL = r'^(pca|grid)/', r'/time/'
# Standard deviations of components before the bound, to choose from.
GAINS = tuple(0.1 * 1.28**i for i in range(12))  # To 1.5.


class Block(nnx.Module):
  """A residual block of a convolution and a projection that starts at zero."""

  def __init__(self, channels: int, temporal: bool, *, rngs: nnx.Rngs):
    self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
    self.conv = layers.Conv(channels, channels, rngs=rngs)
    self.out = layers.Conv(channels, channels, 1, rngs=rngs, init_scale=0.0)
    self.time = (
      layers.TemporalConv(channels, channels, rngs=rngs, init_scale=0.0)
      if temporal
      else None
    )

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t h w c']:
    scale = layers.along_channels(self.scale[...], x, jnp.float32)
    y = jax.nn.silu(layers.rms_norm(x, scale))
    x = x + self.out(jax.nn.silu(self.conv(y)))
    if self.time is not None and x.shape[1] > 1:
      x = x + self.time(y)
    return x


class Branch(nnx.Module):
  """Residual blocks between two convolutions; the last one starts at zero."""

  def __init__(
    self,
    cin: int,
    cout: int,
    width: int,
    blocks: int,
    temporal: bool = False,
    kernel: int = 3,
    *,
    rngs: nnx.Rngs,
  ):
    self.stem = layers.Conv(cin, width, kernel, rngs=rngs)
    self.names = tuple(f'block_{i:02d}' for i in range(blocks))
    for name in self.names:
      setattr(self, name, Block(width, temporal, rngs=rngs))
    self.head = layers.Conv(width, cout, kernel, rngs=rngs, init_scale=0.0)

  def __call__(self, x: FloatArray['b t h w c']) -> FloatArray['b t h w d']:
    x = self.stem(x)
    for name in self.names:
      x = getattr(self, name)(x)
    return self.head(jax.nn.silu(x))


def make(
  factor: int,
  channels: int,
  *,
  time: int = 1,
  encoder: tuple[int, int],
  decoder: tuple[int, int],
  logvar: float = -4.6,
  temporal: bool = False,
  levels: Sequence[int] = (),
) -> tuple[Callable[..., Any], ...]:
  """Returns (init, encode, decode, abstract) over {pca, encoder, decoder}.

  Args:
    factor: spatial reduction, 4 or 8.
    channels: of a latent.
    time: frames of a latent.
    encoder: (width, residual blocks) of its branch.
    decoder: (width, residual blocks) of its branch.
    logvar: initial log-variance.
    temporal: whether the decoder's blocks use neighbouring frames.
    levels: number of values of each channel; () for a KL bottleneck. With
      levels the parameters include a 'grid'.
  """
  if factor not in (4, 8):
    raise ValueError(f'autoencoder.factor is 4 or 8, not {factor}.')
  patch = 3 * time * factor**2
  moments = channels if levels else 2 * channels
  # Patches of several frames have many values: 3 x 3 positions of them would be
  # most of the cost.
  kernel = 3 if time == 1 else 1
  encoder_net = models.functional(
    Branch, patch, moments, *encoder, kernel=kernel
  )
  decoder_net = models.functional(
    Branch, channels, patch, *decoder, temporal, kernel
  )

  def init(key, clips):
    key_encoder, key_decoder = jax.random.split(key)
    components = pca.fit(clips, factor, channels, time)
    params = {
      'pca': jax.tree.map(jnp.asarray, components),
      'encoder': jax.jit(encoder_net.init)(key_encoder),
      'decoder': jax.jit(decoder_net.init)(key_decoder),
    }
    if levels:
      params['grid'] = fit_grid(params['pca'], clips, factor, levels, time)
    return params

  def encode(params, x):
    linear = pca.encode(jax.lax.stop_gradient(params['pca']), x, factor, time)
    patches = layers.space_to_depth(x, factor, time)
    branch = encoder_net.apply(params['encoder'], patches)
    if levels:
      gain = jax.lax.stop_gradient(params['grid']['gain'])
      z = linear * layers.along_channels(gain, linear) + branch
      return latents.deterministic(fsq.quantise(z, levels))
    mean, change = jnp.split(branch, 2, axis=-1)
    return linear + mean, logvar + change

  def decode(params, z):
    scaled = z
    if levels:
      value = jax.lax.stop_gradient(params['grid']['value'])
      scaled = z * layers.along_channels(value, z)
    components = jax.lax.stop_gradient(params['pca'])
    linear = pca.decode(components, scaled, factor, time)
    branch = decoder_net.apply(params['decoder'], z)
    return linear + layers.depth_to_space(branch, factor, time)

  def abstract():
    params = {
      'pca': pca.abstract(factor, channels, time),
      'encoder': encoder_net.abstract_params(),
      'decoder': decoder_net.abstract_params(),
    }
    if levels:
      leaf = jax.ShapeDtypeStruct((channels,), jnp.float32)
      params['grid'] = {'gain': leaf, 'value': leaf}
    return params

  return init, encode, decode, abstract


def fit_grid(
  components: dict[str, Any],
  clips: FloatArray['n t h w 3'],
  factor: int,
  levels: Sequence[int],
  time: int = 1,
) -> dict[str, FloatArray[' c']]:
  """Fits the scales between principal components and the grid.

  Args:
    components: of `pca.fit`.
    clips: values in [-1, 1].
    factor: of the components.
    levels: see `make`.
    time: likewise.

  Returns:
    float32 {'gain': factor of a component before it is quantised; 'value':
    factor of the quantised value}: of GAINS over the standard deviation and any
    value, those with the least squared distance from the component.
  """
  z = jnp.concatenate(
    [
      pca.encode(
        components, jnp.asarray(clip, jnp.float32), factor, time
      ).reshape(-1, len(levels))
      for clip in clips
    ]
  )
  deviation = z.std(axis=0)
  unit = jnp.where(deviation > 1e-6, 1.0 / jnp.maximum(deviation, 1e-6), 1.0)
  square = jnp.square(z).mean(axis=0)
  best = {'error': jnp.full_like(unit, jnp.inf), 'gain': unit, 'value': unit}
  for gain in (factor * unit for factor in GAINS):
    q = fsq.quantise(z * gain[None], levels)
    power = jnp.maximum(jnp.square(q).mean(axis=0), 1e-12)
    value = (z * q).mean(axis=0) / power
    found = {'error': square - value**2 * power, 'gain': gain, 'value': value}
    better = found['error'] < best['error']
    best = {k: jnp.where(better, found[k], best[k]) for k in best}
  return {name: best[name] for name in ('gain', 'value')}


def make_loss(
  encode: Callable[..., Any],
  decode: Callable[..., FloatArray['b t h w 3']],
  *,
  quantised: bool,
  weights: dict[str, float],
  discriminate: Callable[..., FloatArray['b t y x']],
) -> Callable[..., Any]:
  """Returns the training loss of an `Autoencoder`.

  Args:
    encode: (params, x) -> mean, log-variance.
    decode: (params, z) -> x.
    quantised: whether latents are codes, without noise or prior.
    weights: {'l1', 'l2', 'multiscale', 'kl', 'equivariance', 'adversarial':
      weight}; a term of weight zero is not computed.
    discriminate: (params, x) -> logits, for 'adversarial'; the discriminator's
      own loss, 'discriminator', is added with weight one.
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
        decode(params, layers.shrink(z, 2)), layers.shrink(x, 2)
      ),
      # Each treats the other as a constant: see `discriminator.py`.
      'adversarial': lambda: losses.generator_hinge(
        discriminate(jax.lax.stop_gradient(params[discriminator.NAME]), y)
      ),
      'discriminator': lambda: losses.discriminator_hinge(
        discriminate(params[discriminator.NAME], x),
        discriminate(params[discriminator.NAME], jax.lax.stop_gradient(y)),
      ),
    }
    parts = {name: terms[name]() for name in weights}
    return sum(weights[name] * parts[name] for name in weights), parts

  return loss
