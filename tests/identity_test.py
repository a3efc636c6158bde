"""Pixel-space diffusion: the autoencoder that does nothing."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from vdm.models import autoencoders


def test_latents_are_the_pixels():
  config = ml_collections.ConfigDict(dict(kind='identity'))
  autoencoder = autoencoders.make_autoencoder(config)
  assert autoencoder.factor == (1, 1, 1) and autoencoder.channels == 3
  assert autoencoder.loss is None
  x = jax.random.uniform(jax.random.key(0), (2, 3, 4, 4, 3))
  params = autoencoder.init(jax.random.key(1), x)
  mean, logvar = autoencoder.encode(params, x)
  np.testing.assert_array_equal(mean, x)
  assert logvar.shape == x.shape
  # A posterior sample is the pixels too.
  assert float(jnp.exp(0.5 * logvar).max()) < 1e-6
  np.testing.assert_array_equal(autoencoder.decode(params, mean), x)


def test_unknown_kind_is_refused():
  config = ml_collections.ConfigDict(dict(kind='vq'))
  kinds = 'kl, pca, identity, tiny, autoencoder_kl'
  with pytest.raises(ValueError, match=f"{kinds}, not 'vq'"):
    autoencoders.make_autoencoder(config)
