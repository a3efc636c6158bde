"""Principal components of image patches: a linear autoencoder in closed form.

A frame is cut into patches of f x f pixels; a latent holds the patch's leading
principal components over one common number,

  z = B (p - mean) / scale,      p = mean + scale B^T z,

with B orthonormal. The components are not whitened: their share of the
variance is the natural image spectrum, which a diffusion model learns from
coarse to fine, while whitening would raise the faintest component to the
weight of the first. `scale` makes the variance of a latent value, over all
channels, one.

No map with the same number of values a patch, linear and blind to the
neighbours, reconstructs with a smaller squared error.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vdm.models.autoencoders import latents


def space_to_depth(x, factor):
  """[..., h, w, c] -> [..., h / factor, w / factor, factor^2 c]."""
  *leading, h, w, c = x.shape
  x = x.reshape(*leading, h // factor, factor, w // factor, factor, c)
  return x.swapaxes(-4, -3).reshape(
    *leading, h // factor, w // factor, factor * factor * c
  )


def depth_to_space(x, factor):
  """[..., h, w, factor^2 c] -> [..., factor h, factor w, c]."""
  *leading, h, w, c = x.shape
  x = x.reshape(*leading, h, w, factor, factor, c // factor**2)
  return x.swapaxes(-4, -3).reshape(*leading, h * factor, w * factor, -1)


def fit(clips, factor, channels):
  """Fits the components of the patches of some clips.

  Args:
    clips: float [n, t, h, w, 3] in [-1, 1], read clip by clip.
    factor: height and width of a patch, px.
    channels: number of components, at most 3 factor^2.

  Returns:
    {'basis': [channels, 3 factor^2], 'mean': [3 factor^2], 'scale': []},
    float32 numpy arrays; computed in float64.
  """
  size = 3 * factor**2
  if not 1 <= channels <= size:
    raise ValueError(
      f'Patches of {factor} x {factor} px have between 1 and {size} '
      f'components: set autoencoder.channels accordingly, not to {channels}.'
    )
  count, total, second = 0, np.zeros(size), np.zeros((size, size))
  for clip in clips:
    patches = space_to_depth(np.asarray(clip, np.float64), factor)
    patches = patches.reshape(-1, size)
    count += len(patches)
    total += patches.sum(axis=0)
    second += patches.T @ patches
  mean = total / count
  variances, vectors = np.linalg.eigh(second / count - np.outer(mean, mean))
  basis = vectors[:, ::-1][:, :channels].T
  # Eigenvectors have no sign: make the largest entry positive, so that the
  # linear algebra library does not decide.
  largest = np.abs(basis).argmax(axis=1)
  basis = basis * np.sign(basis[np.arange(channels), largest])[:, None]
  scale = np.sqrt(max(variances[::-1][:channels].mean(), 0.0))
  return {
    'basis': basis.astype(np.float32),
    'mean': mean.astype(np.float32),
    'scale': np.float32(scale if scale > 1e-6 else 1.0),
  }


def make(factor, channels):
  """Returns (init, encode, decode) of the linear autoencoder by itself."""

  def init(key, clips):
    del key
    return jax.tree.map(jnp.asarray, fit(clips, factor, channels))

  return (
    init,
    lambda params, x: latents.certain(encode(params, x, factor)),
    lambda params, z: decode(params, z, factor),
  )


def encode(params, x, factor):
  """Latents of frames, [..., h, w, 3] -> [..., h / f, w / f, channels]."""
  basis, mean, scale = _prepare(params, x)
  return (space_to_depth(x, factor) - mean) @ (basis.T / scale)


def decode(params, z, factor):
  """Frames of latents, [..., h, w, channels] -> [..., f h, f w, 3]."""
  basis, mean, scale = _prepare(params, z)
  return depth_to_space(z @ (basis * scale) + mean, factor)


def _prepare(params, x):
  """Basis, mean and scale in the dtype of x, the mean also in its rank."""
  basis, mean, scale = (
    jnp.asarray(params[name]).astype(x.dtype)
    for name in ('basis', 'mean', 'scale')
  )
  return basis, mean.reshape((1,) * (x.ndim - 1) + (-1,)), scale
