"""Principal components of image patches: a linear autoencoder in closed form.

A clip is cut into patches of f x f pixels, of one frame or of a few frames that
follow each other; a latent is the leading principal components of a patch,
divided by one common number,

  z = B (p - mean) / scale,      p = mean + scale B^T z,

with B orthonormal. The components are not whitened: their share of the
variance is the natural image spectrum, which a diffusion model learns from
coarse to fine, while whitening would give the faintest component the weight of
the first. `scale` makes the variance of latent values, over all channels, one.

No linear map of single patches to as many values reconstructs with a smaller
squared error.
"""

from collections.abc import Callable
from typing import Any

from etils.array_types import FloatArray
import jax
import jax.numpy as jnp
import numpy as np

from vdm.models import layers
from vdm.models.autoencoders import latents


def fit(
  clips: FloatArray['n t h w 3'], factor: int, channels: int, time: int = 1
) -> dict[str, FloatArray['...']]:
  """Fits the principal components of the patches of clips.

  Args:
    clips: values in [-1, 1], read clip by clip.
    factor: height and width of a patch, px.
    channels: number of components, at most d = 3 time factor^2.
    time: frames of a patch.

  Returns:
    {'basis': [channels d], 'mean': [d], 'scale': []}, float32 NumPy arrays;
    computed in float64.
  """
  size = 3 * time * factor**2
  if not 1 <= channels <= size:
    raise ValueError(
      f'Patches of {time} x {factor} x {factor} px have between 1 and {size} '
      f'components: set autoencoder.channels accordingly, not to {channels}.'
    )
  count, total, second = 0, np.zeros(size), np.zeros((size, size))
  for clip in clips:
    patches = layers.space_to_depth(np.asarray(clip, np.float64), factor, time)
    patches = patches.reshape(-1, size)
    count += len(patches)
    total += patches.sum(axis=0)
    second += patches.T @ patches
  mean = total / count
  variances, vectors = np.linalg.eigh(second / count - np.outer(mean, mean))
  basis = vectors[:, ::-1][:, :channels].T
  # The sign of an eigenvector is arbitrary: make its largest entry positive, so
  # that it does not depend on the linear algebra library.
  largest = np.abs(basis).argmax(axis=1)
  basis = basis * np.sign(basis[np.arange(channels), largest])[:, None]
  scale = np.sqrt(max(variances[::-1][:channels].mean(), 0.0))
  return {
    'basis': basis.astype(np.float32),
    'mean': mean.astype(np.float32),
    'scale': np.float32(scale if scale > 1e-6 else 1.0),
  }


def abstract(
  factor: int, channels: int, time: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes and dtypes of what `fit` returns."""
  size = 3 * time * factor**2
  shapes = {'basis': (channels, size), 'mean': (size,), 'scale': ()}
  return {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in shapes.items()
  }


def make(
  factor: int, channels: int, time: int = 1
) -> tuple[Callable[..., Any], ...]:
  """Returns (init, encode, decode) of the linear autoencoder by itself."""

  def init(key, clips):
    del key
    return jax.tree.map(jnp.asarray, fit(clips, factor, channels, time))

  return (
    init,
    lambda params, x: latents.deterministic(encode(params, x, factor, time)),
    lambda params, z: decode(params, z, factor, time),
  )


def encode(
  params: dict[str, Any],
  x: FloatArray['*b t h w 3'],
  factor: int,
  time: int = 1,
) -> FloatArray['*b s y x c']:
  """Returns the latents of clips."""
  basis, mean, scale = _prepare(params, x)
  return (layers.space_to_depth(x, factor, time) - mean) @ (basis.T / scale)


def decode(
  params: dict[str, Any],
  z: FloatArray['*b s y x c'],
  factor: int,
  time: int = 1,
) -> FloatArray['*b t h w 3']:
  """Returns the clips of latents."""
  basis, mean, scale = _prepare(params, z)
  return layers.depth_to_space(z @ (basis * scale) + mean, factor, time)


def _prepare(params, x):
  """Returns basis, mean and scale in the dtype of x, the mean in its rank."""
  basis, mean, scale = (
    jnp.asarray(params[name]).astype(x.dtype)
    for name in ('basis', 'mean', 'scale')
  )
  return basis, layers.along_channels(mean, x), scale
