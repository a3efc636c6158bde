"""The linear autoencoder against numpy's singular value decomposition."""

import jax.numpy as jnp
import numpy as np
import pytest

from vdm.config import schema
from vdm.models import autoencoders
from vdm.models import layers
from vdm.models.autoencoders import pca


def clips(n=3, t=2, size=16, seed=0):
  """Smooth random clips: a few waves, so that patches are correlated."""
  random = np.random.default_rng(seed)
  y, x = np.mgrid[:size, :size] / size
  waves = []
  for _ in range(n * t * 3):
    phase, fy, fx = random.uniform(0, 6, 3)
    waves.append(np.sin(fy * y + fx * x + phase))
  video = np.stack(waves, axis=-1).reshape(size, size, n, t, 3)
  video = video + 0.1 * random.standard_normal(video.shape)
  return np.moveaxis(0.4 * video, (2, 3), (0, 1)).astype(np.float32)


def test_patches_are_cut_and_put_back():
  x = np.arange(2 * 8 * 12 * 3, dtype=np.float32).reshape(2, 8, 12, 3)
  patches = layers.space_to_depth(x, 4)
  assert patches.shape == (2, 2, 3, 48)
  np.testing.assert_array_equal(patches[1, 0, 2], x[1, :4, 8:].reshape(-1))
  np.testing.assert_array_equal(layers.depth_to_space(patches, 4), x)


def test_patches_may_hold_several_frames():
  x = np.arange(5 * 4 * 8 * 12 * 3, dtype='f').reshape(5, 4, 8, 12, 3)
  patches = layers.space_to_depth(x, 4, time=2)
  assert patches.shape == (5, 2, 2, 3, 96)
  np.testing.assert_array_equal(
    patches[3, 1, 0, 2], x[3, 2:4, :4, 8:].reshape(-1)
  )
  np.testing.assert_array_equal(layers.depth_to_space(patches, 4, time=2), x)


def test_basis_is_orthonormal_and_latents_have_one_common_scale():
  video = clips()
  params = pca.fit(video, 4, 8)
  np.testing.assert_allclose(
    params['basis'] @ params['basis'].T, np.eye(8), atol=1e-6
  )
  z = np.asarray(pca.encode(params, jnp.asarray(video), 4)).reshape(-1, 8)
  np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-5)
  variance = z.var(axis=0)
  np.testing.assert_allclose(variance.mean(), 1.0, rtol=1e-4)
  # Not whitened: components keep their order of size.
  assert np.all(np.diff(variance) < 0) and variance[0] > 4 * variance[-1]


@pytest.mark.parametrize('time', [1, 2])
def test_no_rank_8_map_does_better(time):
  video = clips()
  params = pca.fit(video, 4, 8, time)
  z = pca.encode(params, jnp.asarray(video), 4, time)
  error = np.asarray(pca.decode(params, z, 4, time)) - video
  patches = layers.space_to_depth(video.astype(np.float64), 4, time)
  patches = patches.reshape(-1, 48 * time)
  singular = np.linalg.svd(patches - patches.mean(axis=0), compute_uv=False)
  # Eckart-Young: the discarded singular values are the error.
  np.testing.assert_allclose(
    np.square(error).sum(), np.square(singular[8:]).sum(), rtol=1e-4
  )


def test_full_rank_is_exact():
  video = clips()
  params = pca.fit(video, 4, 48)
  z = pca.encode(params, jnp.asarray(video), 4)
  np.testing.assert_allclose(pca.decode(params, z, 4), video, atol=1e-5)


def test_constant_clips_are_fitted():
  video = np.full((1, 1, 8, 8, 3), -1.0, np.float32)
  params = pca.fit(video, 4, 4)
  z = pca.encode(params, jnp.asarray(video), 4)
  np.testing.assert_allclose(pca.decode(params, z, 4), video, atol=1e-6)


def test_too_many_channels_are_refused():
  with pytest.raises(ValueError, match='between 1 and 48'):
    pca.fit(clips(), 4, 49)
  with pytest.raises(ValueError, match='between 1 and 96'):
    pca.fit(clips(), 4, 97, time=2)


def test_it_is_an_autoencoder_of_its_own():
  config = schema.default().autoencoder
  config.update(kind='pca', factor=4, channels=48)
  autoencoder = autoencoders.make_autoencoder(config)
  assert autoencoder.factor == (1, 4, 4) and autoencoder.channels == 48
  assert autoencoder.loss is None  # Nothing is left to train.
  x = jnp.asarray(clips())
  params = autoencoder.init(None, clips())
  z, logvar = autoencoder.encode(params, x)
  assert z.shape == logvar.shape == (3, 2, 4, 4, 48)
  np.testing.assert_allclose(autoencoder.decode(params, z), x, atol=1e-5)
