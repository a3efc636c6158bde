"""Statistics of latents against numpy over everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.models.autoencoders import latents


def batches():
  random = np.random.default_rng(0)
  scale = np.array([3.0, 1.0, 0.2])
  return [
    (5.0 + scale * random.standard_normal((n, 2, 4, 4, 3))).astype(np.float32)
    for n in (3, 1, 4)
  ]


@pytest.mark.parametrize('kind', ['shared', 'channel'])
def test_statistics_are_those_of_all_values(kind):
  stats = latents.statistics(iter(batches()), kind)
  z = np.concatenate(batches()).astype(np.float64).reshape(-1, 3)
  scale = z.std(axis=0)
  if kind == 'shared':
    scale = np.full(3, np.sqrt(np.square(scale).mean()))
  np.testing.assert_allclose(stats['mean'], z.mean(axis=0), rtol=1e-6)
  np.testing.assert_allclose(stats['scale'], scale, rtol=1e-6)
  assert stats['mean'].dtype == stats['scale'].dtype == np.float32


def test_shared_scale_keeps_the_channels_proportions():
  z = jnp.asarray(np.concatenate(batches()))
  shared = latents.normalise(z, latents.statistics(batches(), 'shared'))
  channel = latents.normalise(z, latents.statistics(batches(), 'channel'))
  np.testing.assert_allclose(np.square(shared).mean(), 1.0, rtol=1e-4)
  std = np.asarray(shared).std(axis=(0, 1, 2, 3))
  np.testing.assert_allclose(std[0] / std[2], 15.0, rtol=0.1)
  np.testing.assert_allclose(
    np.asarray(channel).std(axis=(0, 1, 2, 3)), 1.0, rtol=1e-4
  )


def test_denormalise_inverts_normalise_and_keeps_the_dtype():
  stats = latents.statistics(batches())
  z = jnp.asarray(batches()[0])
  back = latents.denormalise(latents.normalise(z, stats), stats)
  np.testing.assert_allclose(back, z, atol=1e-5)
  half = latents.normalise(z.astype(jnp.bfloat16), stats)
  assert half.dtype == jnp.bfloat16


def test_a_channel_that_never_changes_is_only_shifted():
  z = np.full((2, 1, 2, 2, 3), 4.0, np.float32)
  stats = latents.statistics([z], 'channel')
  np.testing.assert_array_equal(latents.normalise(jnp.asarray(z), stats), 0.0)


def test_latents_may_stay_as_they_are():
  stats = latents.statistics(batches(), 'none')
  z = batches()[0]
  np.testing.assert_array_equal(latents.normalise(jnp.asarray(z), stats), z)
  assert stats['mean'].dtype == stats['scale'].dtype == np.float32


def test_impossible_requests_are_refused():
  with pytest.raises(ValueError, match='shared, channel, none'):
    latents.statistics(batches(), 'whitened')
  with pytest.raises(ValueError, match='at least one clip'):
    latents.statistics([])


def test_posterior_sample_has_its_moments():
  mean = jnp.full((2, 1, 50, 50, 4), 3.0)
  keys = jax.random.split(jax.random.key(1), 2)
  z = latents.sample(mean, jnp.full_like(mean, np.log(0.25)), keys)
  # Of 20 000 values: 5 standard errors.
  np.testing.assert_allclose(z.mean(), 3.0, atol=0.5 * 5 / 20000**0.5)
  np.testing.assert_allclose(z.std(), 0.5, rtol=5 / 40000**0.5)
  assert not np.array_equal(z[0], z[1])


def test_certain_latents_have_no_noise():
  z, logvar = latents.deterministic(
    jnp.full((1, 1, 2, 2, 3), 0.25, jnp.bfloat16)
  )
  assert logvar.dtype == z.dtype == jnp.bfloat16
  drawn = latents.sample(z, logvar, jax.random.split(jax.random.key(0), 1))
  np.testing.assert_array_equal(drawn, z)
