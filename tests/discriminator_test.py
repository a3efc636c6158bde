"""The patch discriminator, and how it and an autoencoder learn together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vdm.config import schema
from vdm.models import autoencoders
from vdm.models import layers
from vdm.models.autoencoders import discriminator
from vdm.models.autoencoders import losses


def frames(n=8, size=32):
  """Noise, [n, 1, size, size, 3]."""
  random = np.random.default_rng(0)
  return random.uniform(-1, 1, (n, 1, size, size, 3)).astype(np.float32)


def test_a_logit_sees_its_patch_and_no_other_frame():
  judge = discriminator.make(4)
  params = judge.init(jax.random.key(0))
  x = np.zeros((2, 2, 64, 64, 3), np.float32)
  apply = jax.jit(judge.apply)
  before = np.asarray(apply(params, x))  # Waits: x changes in place below.
  assert before.shape == (2, 2, 8, 8)
  x[1, 0, 32, 40] = 1.0
  changed = np.asarray(apply(params, x) != before)
  b, t, h, w = (np.unique(axis) for axis in changed.nonzero())
  assert b.tolist() == [1] and t.tolist() == [0]
  # Three convolutions of 3 at strides 1, 2, 4 and one at 8: 31 px.
  assert len(h) <= 4 and 4 in h and len(w) <= 4 and 5 in w


def test_hinge_losses():
  real = jnp.array([[2.0, 0.5], [0.0, 0.0]])
  fake = jnp.array([[-3.0, 1.0], [0.0, 0.0]])
  # By hand: means of (0, 0.5) and of (0, 2); knowing nothing costs 2.
  np.testing.assert_allclose(
    losses.discriminator_hinge(real, fake), [1.25, 2.0]
  )
  np.testing.assert_allclose(losses.generator_hinge(fake), [1.0, 0.0])


def test_each_has_the_gradient_of_its_own_loss():
  config = schema.default().autoencoder
  config.update(factor=4, channels=4, encoder_width=8, decoder_width=8)
  config.update(adversarial_weight=0.3, discriminator_width=4, kl_weight=0.0)
  config.update(initial_logvar=-30.0, multiscale_weight=0.0)
  codec = autoencoders.make_autoencoder(config)
  x, keys = jnp.asarray(frames()), jax.random.split(jax.random.key(1), 8)
  params = codec.init(jax.random.key(0), frames())
  params = jax.tree.map(
    lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape),
    params,
  )
  judge = discriminator.make(4)

  def of_both(params):
    total, parts = codec.loss(params, x, keys)
    assert set(parts) == {'l1', 'adversarial', 'discriminator'}
    return total.sum()

  def of_codec(codec_params):
    y = codec.decode(codec_params, codec.encode(codec_params, x)[0])
    logits = judge.apply(params['discriminator'], y)
    return (losses.l1(y, x) + 0.3 * losses.generator_hinge(logits)).sum()

  def of_judge(judge_params):
    y = codec.decode(params, codec.encode(params, x)[0])
    logits = [judge.apply(judge_params, frames) for frames in (x, y)]
    return losses.discriminator_hinge(*logits).sum()

  found = jax.jit(jax.grad(of_both))(params)
  wanted = jax.jit(jax.grad(of_codec))(params)
  wanted['discriminator'] = jax.jit(jax.grad(of_judge))(params['discriminator'])
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted)
  ):
    # The noise of exp(-15), and sums in another order.
    np.testing.assert_allclose(
      a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max() + 1e-7, err_msg=str(path)
    )
  assert max(np.abs(g).max() for g in jax.tree.leaves(found['encoder'])) > 0


def test_it_learns_to_tell_blur_from_texture():
  x = jnp.asarray(frames())
  blurred = jnp.repeat(jnp.repeat(layers.shrink(x, 2), 2, 2), 2, 3)
  judge = discriminator.make(8)
  params = judge.init(jax.random.key(0))
  adam = optax.adam(1e-2)

  def loss(params):
    return losses.discriminator_hinge(
      judge.apply(params, x[:4]), judge.apply(params, blurred[:4])
    ).mean()

  @jax.jit
  def step(params, state):
    updates, state = adam.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state

  state = adam.init(params)
  for _ in range(40):
    params, state = step(params, state)
  # Frames that it has not seen; knowing nothing costs 2.
  real, fake = (judge.apply(params, frames[4:]) for frames in (x, blurred))
  assert losses.discriminator_hinge(real, fake).mean() < 0.5
