"""The noising process, and conversions between the predictions of a network.

Everything is a function of one variable, the log-SNR ("level"):

    z = alpha x0 + sigma eps,      eps ~ N(0, I),
    l = log(alpha^2 / sigma^2),    alpha^2 + sigma^2 = 1,
    alpha = (1 + exp(-l))^-1/2,    sigma = (1 + exp(l))^-1/2,

so the process is variance preserving with any schedule; another process with
the same log-SNR (EDM's z / alpha, flow matching's z / (alpha + sigma)) differs
from it by a known factor (Kingma & Gao 2023, arXiv:2303.00848). Levels lie in
[NOISE, CLEAN] = [-40, 40], where every coefficient is a finite float32; CLEAN
means the clip itself.

A network predicts one of

    x0,   eps,   v = alpha eps - sigma x0,   flow: u = eps - x0,
    edm: f = (d^2 alpha eps - sigma x0) / n,   n = (sigma^2 + d^2 alpha^2)^1/2

(v: Salimans & Ho 2022, arXiv:2202.00512; edm: Karras et al. 2022,
arXiv:2206.00364, table 1, times -d, for data of deviation d). With z known,
each gives the others:

    kind    x0                           eps
    x0      x0                           (z - alpha x0) / sigma
    eps     (z - sigma eps) / alpha      eps
    v       alpha z - sigma v            sigma z + alpha v
    flow    (z - sigma u)/(alpha+sigma)  (z + alpha u)/(alpha+sigma)
    edm     (d^2 alpha z - sigma n f)/n^2   (sigma z + alpha n f)/n^2

So edm is -x0 where the noise is above d and d eps below it, and v is edm of
d = 1. Latents have deviation 1, but what is in them may be known by far fewer
numbers than they have values: patches of several frames, a plain ground. They
are then denoised best as an x0 down to a smaller d.

Levels are per frame, [b t], for clips [b t h w c]. Arithmetic is in float32 for
clips of lower precision, and in float64 for float64.
"""

from etils.array_types import BoolArray, FloatArray
import jax
import jax.numpy as jnp

CLEAN = 40.0  # Level of a frame that is given: alpha = 1, sigma = 2e-9.
NOISE = -40.0  # Level of pure noise: alpha = 2e-9, sigma = 1.
PREDICTIONS = ('x0', 'eps', 'v', 'flow', 'edm')


def at_least_float32(x: FloatArray['*b']) -> FloatArray['*b']:
  """Returns `x` in float32, or in its own dtype where that is wider."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def per_frame(
  levels: FloatArray['b t'] | BoolArray['b t'], x: FloatArray['b t h w c']
) -> FloatArray['b t 1 1 1'] | BoolArray['b t 1 1 1']:
  """Returns `levels` with trailing axes of size 1, up to the rank of `x`."""
  return levels.reshape(levels.shape + (1,) * (x.ndim - levels.ndim))


def alpha_sigma(
  levels: FloatArray['*b'],
) -> tuple[FloatArray['*b'], FloatArray['*b']]:
  """Returns alpha and sigma, each accurate at both ends."""
  levels = at_least_float32(levels)
  return (1 + jnp.exp(-levels)) ** -0.5, (1 + jnp.exp(levels)) ** -0.5


def level_of_sigma(sigma: FloatArray['*b']) -> FloatArray['*b']:
  """Returns the log-SNR at which noise has deviation `sigma`, 0 to 1.

  The inverse of sigma(l), within [NOISE, CLEAN].
  """
  sigma = at_least_float32(sigma)
  return jnp.clip(jnp.log1p(-(sigma**2)) - 2 * jnp.log(sigma), NOISE, CLEAN)


def noise(
  key: jax.Array, shape: tuple[int, int, int, int, int]
) -> FloatArray['b t h w c']:
  """Returns standard normal float32 noise, for training and for sampling.

  Args:
    key: a typed key (`jax.random.key`); or one key per row, [b]: then a row
      does not depend on the rows that are drawn with it.
    shape: (b, t, h, w, c).
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise ValueError('Make keys with jax.random.key, not jax.random.PRNGKey.')
  if key.ndim == 0:
    return jax.random.normal(key, shape, jnp.float32)
  if key.shape != shape[:1]:
    raise ValueError(f'{key.shape} keys for {shape[0]} rows: give one a row.')
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:], jnp.float32))(key)


def fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
  """Applies `jax.random.fold_in` to a key, or to each of the rows' keys [b]."""
  if key.ndim == 0:
    return jax.random.fold_in(key, data)
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, data)


def add_noise(
  x0: FloatArray['b t h w c'],
  eps: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
) -> FloatArray['b t h w c']:
  """Returns z at `levels`; a frame at CLEAN is an exact copy of x0."""
  x0, eps = at_least_float32(x0), at_least_float32(eps)
  levels = per_frame(levels, x0)
  alpha, sigma = alpha_sigma(levels)
  return jnp.where(levels >= CLEAN, x0, alpha * x0 + sigma * eps)


def to_x0_eps(
  kind: str,
  output: FloatArray['b t h w c'],
  z: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  sigma_data: float = 1.0,
) -> tuple[FloatArray['b t h w c'], FloatArray['b t h w c']]:
  """Returns the (x0, eps) that a prediction of `kind` implies, given z."""
  output, z = at_least_float32(output), at_least_float32(z)
  alpha, sigma = alpha_sigma(per_frame(levels, z))
  if kind == 'x0':
    return output, (z - alpha * output) / sigma
  if kind == 'eps':
    return (z - sigma * output) / alpha, output
  if kind == 'v':
    return alpha * z - sigma * output, sigma * z + alpha * output
  if kind == 'edm':
    square = sigma**2 + (sigma_data * alpha) ** 2
    change = output / jnp.sqrt(square)
    x0 = sigma_data**2 * alpha / square * z - sigma * change
    return x0, sigma / square * z + alpha * change
  if kind == 'flow':
    scale = alpha + sigma
    return (z - sigma * output) / scale, (z + alpha * output) / scale
  raise ValueError(f'Unknown prediction {kind!r}: use one of {PREDICTIONS}.')


def from_x0_eps(
  kind: str,
  x0: FloatArray['b t h w c'],
  eps: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  sigma_data: float = 1.0,
) -> FloatArray['b t h w c']:
  """Returns the target of a network that predicts `kind`."""
  x0, eps = at_least_float32(x0), at_least_float32(eps)
  alpha, sigma = alpha_sigma(per_frame(levels, x0))
  if kind == 'x0':
    return x0
  if kind == 'eps':
    return eps
  if kind == 'v':
    return alpha * eps - sigma * x0
  if kind == 'flow':
    return eps - x0
  if kind == 'edm':
    root = jnp.sqrt(sigma**2 + (sigma_data * alpha) ** 2)
    return (sigma_data**2 * alpha * eps - sigma * x0) / root
  raise ValueError(f'Unknown prediction {kind!r}: use one of {PREDICTIONS}.')


def to_x0(
  kind: str,
  output: FloatArray['b t h w c'],
  z: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  sigma_data: float = 1.0,
) -> FloatArray['b t h w c']:
  """Returns the clip that a prediction of `kind` implies, given z."""
  return to_x0_eps(kind, output, z, levels, sigma_data)[0]


def convert(
  source: str,
  target: str,
  output: FloatArray['b t h w c'],
  z: FloatArray['b t h w c'],
  levels: FloatArray['b t'],
  sigma_data: float = 1.0,
) -> FloatArray['b t h w c']:
  """Converts a prediction of kind `source` to kind `target`."""
  x0, eps = to_x0_eps(source, output, z, levels, sigma_data)
  return from_x0_eps(target, x0, eps, levels, sigma_data)
