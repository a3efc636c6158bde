"""The noising process, and what a network may predict of it.

Everything is a function of one variable, the log-SNR ("level"):

    z = alpha x0 + sigma eps,      eps ~ N(0, I),
    l = log(alpha^2 / sigma^2),    alpha^2 + sigma^2 = 1,
    alpha = (1 + exp(-l))^-1/2,    sigma = (1 + exp(l))^-1/2,

so that the process is variance preserving whatever the schedule; another
process with the same log-SNR (EDM's z / alpha, flow matching's
z / (alpha + sigma)) is this one up to a known factor (Kingma & Gao 2023,
arXiv:2303.00848). Levels lie in [NOISE, CLEAN] = [-40, 40], where every
coefficient is a finite float32; CLEAN means the clip itself.

A network predicts one of

    x0,   eps,   v = alpha eps - sigma x0,   flow: u = eps - x0,

(v: Salimans & Ho 2022, arXiv:2202.00512). With z known, any one gives all:

    kind    x0                           eps
    x0      x0                           (z - alpha x0) / sigma
    eps     (z - sigma eps) / alpha      eps
    v       alpha z - sigma v            sigma z + alpha v
    flow    (z - sigma u)/(alpha+sigma)  (z + alpha u)/(alpha+sigma)

Levels are per frame, `[b t]`, beside clips `[b t h w c]`. Arithmetic is in
float32 at least, whatever the clip's dtype, and in float64 on float64.
"""

import jax
import jax.numpy as jnp

CLEAN = 40.0  # Level of a frame that is given: alpha = 1, sigma = 2e-9.
NOISE = -40.0  # Level of pure noise: alpha = 2e-9, sigma = 1.
PREDICTIONS = ('x0', 'eps', 'v', 'flow')


def at_least_float32(x):
  """Returns `x` in its own precision, or float32 where that is lower."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def per_frame(levels, x):
  """Returns `levels` [b t] with axes of size 1 for the further axes of `x`."""
  return levels.reshape(levels.shape + (1,) * (x.ndim - levels.ndim))


def alpha_sigma(levels):
  """Returns the shares of signal and noise, each accurate at both ends."""
  levels = at_least_float32(levels)
  return (1 + jnp.exp(-levels)) ** -0.5, (1 + jnp.exp(levels)) ** -0.5


def noise(key, shape):
  """Returns standard normal float32 noise, of training and of sampling.

  Args:
    key: a typed key (`jax.random.key`); or one key per row, [b]: then a row
      is the same whatever rows it is drawn with.
    shape: (b, t, h, w, c).
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise ValueError('Make keys with jax.random.key, not jax.random.PRNGKey.')
  if key.ndim == 0:
    return jax.random.normal(key, shape, jnp.float32)
  if key.shape != shape[:1]:
    raise ValueError(f'{key.shape} keys for {shape[0]} rows: give one a row.')
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:], jnp.float32))(key)


def fold_in(key, data):
  """Returns `jax.random.fold_in` of a key, or of every row's key."""
  if key.ndim == 0:
    return jax.random.fold_in(key, data)
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, data)


def add_noise(x0, eps, levels):
  """Returns z at `levels` [b t]; a frame at CLEAN is an exact copy of x0."""
  x0, eps = at_least_float32(x0), at_least_float32(eps)
  levels = per_frame(levels, x0)
  alpha, sigma = alpha_sigma(levels)
  return jnp.where(levels >= CLEAN, x0, alpha * x0 + sigma * eps)


def to_x0_eps(kind, output, z, levels):
  """Returns the (x0, eps) that a prediction of `kind` implies, given z."""
  output, z = at_least_float32(output), at_least_float32(z)
  alpha, sigma = alpha_sigma(per_frame(levels, z))
  if kind == 'x0':
    return output, (z - alpha * output) / sigma
  if kind == 'eps':
    return (z - sigma * output) / alpha, output
  if kind == 'v':
    return alpha * z - sigma * output, sigma * z + alpha * output
  if kind == 'flow':
    scale = alpha + sigma
    return (z - sigma * output) / scale, (z + alpha * output) / scale
  raise ValueError(f'Unknown prediction {kind!r}: use one of {PREDICTIONS}.')


def from_x0_eps(kind, x0, eps, levels):
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
  raise ValueError(f'Unknown prediction {kind!r}: use one of {PREDICTIONS}.')


def to_x0(kind, output, z, levels):
  """Returns the clip that a prediction of `kind` implies, given z."""
  return to_x0_eps(kind, output, z, levels)[0]


def convert(source, target, output, z, levels):
  """Returns a prediction of kind `source` as one of kind `target`."""
  x0, eps = to_x0_eps(source, output, z, levels)
  return from_x0_eps(target, x0, eps, levels)
