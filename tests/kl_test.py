"""The KL autoencoder with its linear skip."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from vdm.models import autoencoders
from vdm.models.autoencoders import kl
from vdm.models.autoencoders import losses
from vdm.models.autoencoders import pca

CONFIG = ml_collections.ConfigDict(
  dict(
    kind='kl',
    factor=4,
    channels=4,
    encoder_width=8,
    encoder_blocks=1,
    decoder_width=8,
    decoder_blocks=1,
    kl_weight=1e-3,
    multiscale_weight=1.0,
  )
)


def clips(n=4, t=2, size=16):
  """Discs of random place and colour on black."""
  random = np.random.default_rng(0)
  y, x = np.mgrid[:size, :size]
  video = np.full((n, t, size, size, 3), -1.0, np.float32)
  for frame in video.reshape(-1, size, size, 3):
    cy, cx = random.uniform(4, size - 4, 2)
    frame[np.hypot(y - cy, x - cx) < 3] = random.uniform(-1, 1, 3)
  return video


@functools.cache
def setup():
  autoencoder = autoencoders.make_autoencoder(CONFIG)
  return autoencoder, autoencoder.init(jax.random.key(0), clips())


def perturbed(params):
  """Parameters whose branches do something, as after training."""
  return jax.tree.map(
    lambda p: (
      p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape, p.dtype)
    ),
    params,
  )


def keys(n):
  return jax.random.split(jax.random.key(1), n)


def test_shapes_and_factor():
  autoencoder, params = setup()
  assert autoencoder.factor == (1, 4, 4) and autoencoder.channels == 4
  mean, logvar = autoencoder.encode(params, jnp.asarray(clips()[:, :, :8]))
  assert mean.shape == logvar.shape == (4, 2, 2, 4, 4)
  assert autoencoder.decode(params, mean).shape == (4, 2, 8, 16, 3)


def test_starts_at_the_quality_of_pca():
  autoencoder, params = setup()
  x = jnp.asarray(clips())
  mean, logvar = autoencoder.encode(params, x)
  linear = pca.encode(params['pca'], x, 4)
  np.testing.assert_array_equal(mean, linear)
  np.testing.assert_array_equal(
    autoencoder.decode(params, mean), pca.decode(params['pca'], linear, 4)
  )
  # The posterior's noise is a tenth of the latents' deviation.
  np.testing.assert_allclose(jnp.exp(0.5 * logvar), 0.1, rtol=0.01)
  np.testing.assert_allclose(jnp.square(mean).mean(), 1.0, rtol=1e-3)


def test_frames_are_independent():
  autoencoder, params = setup()
  params = perturbed(params)

  @jax.jit
  def run(x):
    mean, logvar = autoencoder.encode(params, x)
    return mean, logvar, autoencoder.decode(params, mean)

  x = jnp.asarray(clips())
  before = run(x)
  after = run(x.at[1, 0].set(0.3))
  for a, b in zip(before, after):
    changed = np.any(np.asarray(a != b), axis=(2, 3, 4))
    np.testing.assert_array_equal(changed.nonzero(), [[1], [0]])


def test_gradient_reaches_the_branches_and_not_the_components():
  autoencoder, params = setup()
  gradient = jax.jit(
    jax.grad(
      lambda p: autoencoder.loss(p, jnp.asarray(clips()), keys(4))[0].sum()
    )
  )(perturbed(params))
  for leaf in jax.tree.leaves(gradient['pca']):
    np.testing.assert_array_equal(leaf, 0.0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    (gradient['encoder'], gradient['decoder'])
  ):
    assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_loss_is_per_example():
  """A row's loss and noise depend on its clip and its key alone."""
  autoencoder, params = setup()
  params, x = perturbed(params), jnp.asarray(clips())
  loss = jax.jit(autoencoder.loss)
  total, parts = loss(params, x, keys(4))
  assert total.shape == (4,) and total.dtype == jnp.float32
  np.testing.assert_allclose(
    total,
    parts['l1'] + parts['multiscale'] + 1e-3 * parts['kl'],
    rtol=1e-6,
  )
  order = jnp.array([2, 0, 3, 1])
  shuffled, _ = loss(params, x[order], keys(4)[order])
  np.testing.assert_allclose(shuffled, total[order], rtol=1e-5)
  other, _ = loss(params, x, keys(4).at[2].set(jax.random.key(9)))
  np.testing.assert_array_equal((other != total).nonzero()[0], [2])


def test_posterior_sample_has_its_moments():
  mean = jnp.full((2, 1, 50, 50, 4), 3.0)
  z = kl.sample(mean, jnp.full_like(mean, np.log(0.25)), keys(2))
  # Of 20 000 values: 5 standard errors.
  np.testing.assert_allclose(z.mean(), 3.0, atol=0.5 * 5 / 20000**0.5)
  np.testing.assert_allclose(z.std(), 0.5, rtol=5 / 40000**0.5)
  assert not np.array_equal(z[0], z[1])


def test_computes_in_the_dtype_of_its_input():
  autoencoder, params = setup()
  x = jnp.asarray(clips())
  mean, logvar = jax.eval_shape(
    autoencoder.encode, params, x.astype(jnp.bfloat16)
  )
  assert mean.dtype == logvar.dtype == jnp.bfloat16
  assert jax.eval_shape(autoencoder.decode, params, mean).dtype == jnp.bfloat16
  total, _ = jax.eval_shape(
    autoencoder.loss, params, x.astype(jnp.bfloat16), keys(4)
  )
  assert total.dtype == jnp.float32
  # And to about bfloat16's 8 bits of what float32 gives.
  half, _ = autoencoder.encode(params, x.astype(jnp.bfloat16))
  full, _ = autoencoder.encode(params, x)
  np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.05)


def test_training_beats_pca():
  autoencoder, params = setup()
  x = jnp.asarray(clips())
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(params, state, key):
    def loss(params):
      return autoencoder.loss(params, x, jax.random.split(key, 4))[0].mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  def quality(params):
    mean, _ = autoencoder.encode(params, x)
    return float(losses.psnr(autoencoder.decode(params, mean), x).mean())

  trained, state, values = params, optimizer.init(params), []
  for i in range(30):
    trained, state, value = step(trained, state, jax.random.key(i))
    values.append(float(value))
  assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])
  assert quality(trained) > quality(params) + 1.0
  jax.tree.map(np.testing.assert_array_equal, trained['pca'], params['pca'])


def test_impossible_sizes_are_refused():
  config = CONFIG.copy_and_resolve_references()
  config.factor = 3
  with pytest.raises(ValueError, match='autoencoder.factor is 4 or 8, not 3'):
    autoencoders.make_autoencoder(config)
