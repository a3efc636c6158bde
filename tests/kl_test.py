"""The KL autoencoder with its linear skip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdm.config import schema
from vdm.models import autoencoders
from vdm.models.autoencoders import fsq
from vdm.models.autoencoders import kl
from vdm.models.autoencoders import losses
from vdm.models.autoencoders import pca


def make_config(**changes):
  config = schema.default().autoencoder
  config.update(
    factor=4,
    channels=4,
    encoder_width=8,
    decoder_width=8,
    decoder_blocks=1,
    **changes,
  )
  return config


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
  autoencoder = autoencoders.make_autoencoder(make_config())
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


def test_the_noise_starts_where_it_is_set():
  autoencoder = autoencoders.make_autoencoder(make_config(initial_logvar=-9.0))
  _, logvar = autoencoder.encode(setup()[1], jnp.asarray(clips()))
  np.testing.assert_array_equal(logvar, -9.0)


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


def test_a_latent_may_hold_several_frames():
  config = make_config(time_factor=2)
  autoencoder = autoencoders.make_autoencoder(config)
  video = jnp.asarray(clips(t=4))
  params = autoencoder.init(jax.random.key(0), video)
  assert autoencoder.factor == (2, 4, 4)
  mean, logvar = jax.jit(autoencoder.encode)(params, video)
  assert mean.shape == logvar.shape == (4, 2, 4, 4, 4)
  decode = jax.jit(autoencoder.decode)
  # Untrained it is the linear one, which knows nothing of where a group lies.
  linear = pca.decode(params['pca'], mean, 4, 2)
  np.testing.assert_allclose(decode(params, mean), linear, atol=1e-5)
  params = perturbed(params)
  mean, _ = autoencoder.encode(params, video)
  video = video.at[:, :2].set(0.5)
  other, _ = autoencoder.encode(params, video)
  np.testing.assert_array_equal(other[:, 1], mean[:, 1])
  assert np.abs(other[:, 0] - mean[:, 0]).max() > 0.1
  np.testing.assert_array_equal(
    decode(params, mean)[:, 2:], decode(params, other)[:, 2:]
  )


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
  config = make_config()
  config.factor = 3
  with pytest.raises(ValueError, match='autoencoder.factor is 4 or 8, not 3'):
    autoencoders.make_autoencoder(config)


def test_terms_have_their_weights():
  weights = dict(l1=0.5, l2=2.0, multiscale=0.0, kl=0.01, equivariance=3.0)
  config = make_config(**{f'{k}_weight': v for k, v in weights.items()})
  autoencoder = autoencoders.make_autoencoder(config)
  params, x = perturbed(setup()[1]), jnp.asarray(clips())
  total, parts = jax.jit(autoencoder.loss)(params, x, keys(4))
  assert set(parts) == {'l1', 'l2', 'kl', 'equivariance'}
  wanted = sum(weights[name] * value for name, value in parts.items())
  np.testing.assert_allclose(total, wanted, rtol=1e-6)


def test_equivariance_compares_the_frames_of_halved_latents():
  """With one component, the mean colour, PCA scales perfectly."""
  config = make_config(equivariance_weight=1.0, l1_weight=0.0, kl_weight=0.0)
  config.update(multiscale_weight=0.0, channels=1)
  autoencoder = autoencoders.make_autoencoder(config)
  grey = np.random.default_rng(0).uniform(-1, 1, (4, 1, 4, 4, 1, 1))
  # Blocks of 8 px: halved they are blocks of 4, as latents are.
  x = np.broadcast_to(grey, (4, 1, 4, 4, 8, 24)).reshape(4, 1, 4, 4, 8, 8, 3)
  x = x.swapaxes(3, 4).reshape(4, 1, 32, 32, 3).astype(np.float32)
  params = autoencoder.init(jax.random.key(0), x)
  # exp(-15): without noise.
  params['encoder']['head']['bias'] = jnp.array([0.0, -30.0])
  loss = jax.jit(autoencoder.loss)
  total, _ = loss(params, jnp.asarray(x), keys(4))
  np.testing.assert_allclose(total, 0.0, atol=1e-4)
  # Half a block further, halved frames mix colours where latents do not.
  total, _ = loss(params, jnp.roll(x, 4, axis=3), keys(4))
  assert total.min() > 0.01


def test_temporal_decoder_is_the_framewise_one_until_it_has_learned():
  config = make_config(decoder_temporal=True)
  autoencoder = autoencoders.make_autoencoder(config)
  x = jnp.asarray(clips(t=4))
  params = autoencoder.init(jax.random.key(0), clips())
  framewise, plain = setup()
  z, _ = autoencoder.encode(params, x)
  before = autoencoder.decode(params, z)
  np.testing.assert_allclose(before, framewise.decode(plain, z), atol=1e-6)
  params = perturbed(params)
  decode = jax.jit(autoencoder.decode)
  # A frame by itself decodes as if there were no time.
  block = dict(params['decoder']['block_00'])
  del block['time']
  without = {**params, 'decoder': {**params['decoder'], 'block_00': block}}
  np.testing.assert_allclose(
    decode(params, z[:, :1]), framewise.decode(without, z[:, :1]), atol=1e-6
  )
  # One block sees one frame to each side, and latents no other at all.
  changed = decode(params, z.at[0, 0].add(1.0)) != decode(params, z)
  frames = np.any(np.asarray(changed), axis=(2, 3, 4))
  np.testing.assert_array_equal(frames.nonzero(), [[0, 0], [0, 1]])
  mean, _ = jax.jit(autoencoder.encode)(params, x)
  alone, _ = jax.jit(autoencoder.encode)(params, x[:, 2:3])
  np.testing.assert_allclose(mean[:, 2:3], alone, atol=1e-6)


@functools.cache
def tokens_setup():
  config = make_config(bottleneck='fsq', levels=(8, 5, 3, 2))
  autoencoder = autoencoders.make_autoencoder(config)
  return autoencoder, autoencoder.init(jax.random.key(0), clips())


def test_codes_start_as_components_of_the_gain_that_fits_best():
  autoencoder, params = tokens_setup()
  x = jnp.asarray(clips())
  q, logvar = jax.jit(autoencoder.encode)(params, x)
  z = np.asarray(pca.encode(params['pca'], x, 4), np.float64).reshape(-1, 4)
  gain = np.asarray(params['grid']['gain'], np.float64)
  wanted = fsq.quantise(jnp.asarray(z * gain[None]), (8, 5, 3, 2))
  assert np.mean(q.reshape(-1, 4) == wanted) > 0.999  # But for ties.
  np.testing.assert_allclose(jnp.exp(0.5 * logvar), 0.0, atol=1e-6)
  # The decoder's multiple is the least-squares fit, channel by channel.
  values = np.asarray(q, np.float64).reshape(-1, 4)
  fits = [np.linalg.lstsq(values[:, [c]], z[:, c])[0][0] for c in range(4)]
  np.testing.assert_allclose(params['grid']['value'], fits, rtol=1e-3)

  def errors(values):
    values = np.asarray(values, np.float64)
    power = np.maximum((values**2).mean(0), 1e-12)
    return (z**2).mean(0) - (values * z).mean(0) ** 2 / power

  # And no other of the gains would fit better.
  others = [
    errors(fsq.quantise(jnp.asarray(z * unit[None]), (8, 5, 3, 2)))
    for unit in np.outer(kl.GAINS, 1 / z.std(axis=0))
  ]
  np.testing.assert_allclose(errors(values), np.min(others, 0), rtol=1e-3)
  assert np.max(others) > 1.1 * np.min(others)


def test_codes_train_straight_through_the_rounding():
  autoencoder, params = tokens_setup()
  params, x = perturbed(params), jnp.asarray(clips())
  loss = jax.jit(autoencoder.loss)
  total, parts = loss(params, x, keys(4))
  assert set(parts) == {'l1', 'multiscale'}  # No prior, no noise:
  other, _ = loss(params, x, keys(4)[::-1])
  np.testing.assert_array_equal(total, other)
  gradient = jax.jit(
    jax.grad(lambda p: autoencoder.loss(p, x, keys(4))[0].sum())
  )(params)
  for name in ('encoder', 'decoder'):
    for leaf in jax.tree.leaves(gradient[name]):
      assert np.abs(leaf).max() > 0
  for name in ('pca', 'grid'):
    for leaf in jax.tree.leaves(gradient[name]):
      np.testing.assert_array_equal(leaf, 0.0)
