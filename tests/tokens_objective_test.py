"""The objective of masked tokens, worked out in NumPy, and on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm.common import trees
from vdm.diffusion import masking
from vdm.models import autoencoders
from vdm.models import tokens as codes
from vdm.models.autoencoders import fsq
from vdm.planning import costs
from vdm.training import objective as protocol
from vdm.training import objectives
from vdm.training import sharding

LEVELS, SIZES = (4, 3, 2), (12, 2)
SIDE = 8  # Of clips, px: 2 x 2 positions.


def make_config(**stage):
  config = tiny_runs.make_config(objective='tokens', resolution=SIDE, **stage)
  config.data.resolution = SIDE
  config.autoencoder.update(
    kind='kl',
    bottleneck='fsq',
    factor=4,
    channels=3,
    levels=LEVELS,
    encoder_width=4,
    encoder_blocks=0,
    decoder_width=4,
    decoder_blocks=0,
    load='runs/another',
  )
  config.model.kind = 'transformer'
  config.model.transformer.update(width=16, depth=1, vocabulary=12)
  config.sample.guidance = 1.5
  return config


def batch(rows, seed=0):
  return tiny_runs.batch(rows, size=SIDE, seed=seed)


@functools.cache
def frozen():
  """The frozen autoencoder of `make_config`."""
  codec = autoencoders.make_autoencoder(make_config().autoencoder)
  clips = batch(8)['video'].astype(np.float32) / 127.5 - 1
  params = codec.init(jax.random.key(0), clips)
  leaf = np.array([0.5, 0.2, 0.3], np.float32)  # Nobody reads these.
  return {'params': params, 'stats': {'mean': leaf, 'scale': leaf}}


def values_of(video):
  codec = autoencoders.make_autoencoder(make_config().autoencoder)
  x = jnp.asarray(video.astype(np.float32) / 127.5 - 1)
  return jax.jit(codec.encode)(frozen()['params'], x)[0]


def tokens_of(video):
  digits = fsq.to_digits(values_of(video), LEVELS)
  return np.asarray(codes.pack(digits, ((4, 3), (2,))))


def saying(params, logits):
  """Parameters of a network that always says the same."""
  flat = trees.flatten(tiny_runs.randomise(params))
  flat['head/kernel'] = 0 * flat['head/kernel']
  flat['head/bias'] = np.float32(logits)
  return trees.unflatten(flat)


LOGITS = np.random.default_rng(3).normal(size=sum(SIZES))


def nats(tokens):
  """-log p of tokens by LOGITS, and whether these are largest there."""
  total, hits = 0.0, True
  for i, part in enumerate((LOGITS[:12], LOGITS[12:])):
    log_p = part - np.log(np.exp(part).sum())
    total = total - log_p[tokens[..., i]]
    hits = hits & (tokens[..., i] == part.argmax())
  return total, hits


@pytest.fixture(scope='module')
def made():
  config = make_config(batch=2)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return objectives.make_objective(config, config.stages.video, mesh)


def test_the_loss_is_the_mean_over_masked_tokens(made):
  clips = batch(3)
  shares = np.array([[0.2] * 3, [0.9] * 3, [0.6, 0.6, 0.0]], np.float32)
  given = np.array([[False] * 3, [False] * 3, [False, False, True]])
  rows = {
    **clips,
    'shares': shares,
    'given': given,
    'key': jax.random.split(jax.random.key(5), 3),
  }
  params = saying(made.abstract_params(), LOGITS)
  total, count, sums = jax.jit(made.loss)(params, frozen(), rows)
  keys = jax.vmap(lambda k: jax.random.fold_in(k, protocol.NOISE))(rows['key'])
  masked = np.asarray(masking.draw(keys, shares, given, (2, 2)))
  loss, hits = nats(tokens_of(clips['video']))
  assert count == masked.sum()
  np.testing.assert_allclose(total, loss[masked].sum(), rtol=1e-4)
  np.testing.assert_allclose(sums['accuracy'][0], (hits & masked).sum())
  # Of the last clip, 0.6 of what is not given.
  for row, name in enumerate(('0_to_0.25', '0.75_to_1', '0.5_to_0.75')):
    value, number = sums[f'loss/masked_{name}']
    assert number == masked[row].sum()
    wanted = loss[row][masked[row]].sum()
    np.testing.assert_allclose(value, wanted, rtol=1e-4)
  assert sums['loss/masked_0.25_to_0.5'][1] == 0
  # A cache of latents holds the codes in float16.
  del rows['video']
  rows['mean'] = values_of(clips['video']).astype(jnp.float16)
  again, _, _ = jax.jit(made.loss)(params, frozen(), rows)
  np.testing.assert_allclose(again, total, rtol=1e-6)


def test_validation_is_at_fixed_shares_with_labels_and_without(made):
  clips = batch(3)  # The second piece is half padding.
  params = tiny_runs.randomise(made.abstract_params(), scale=1.0)

  def validate(params, label=0):
    labels = np.full(3, label, np.int32)
    return made.validate(params, frozen(), clips | {'label': labels})

  first, other = validate(params), validate(params, 2)
  names = [f'masked_{x:g}' for x in (0.25, 0.5, 0.75, 1.0)]
  assert set(first) == {
    f'{name}{rest}'
    for name in ('val_loss', 'val_loss_labelled')
    for rest in ('', *(f'/{x}' for x in names))
  }
  assert first['val_loss'] == other['val_loss']
  assert first['val_loss_labelled'] != other['val_loss_labelled']
  # With everything masked, of a network that always says the same.
  found = validate(saying(made.abstract_params(), LOGITS))
  wanted = nats(tokens_of(clips['video']))[0].mean()
  np.testing.assert_allclose(found['val_loss/masked_1'], wanted, rtol=1e-4)


def test_draws_are_those_of_noise_levels(made):
  config = make_config(
    frame_levels=dict(shared=0.25, context=0.25, independent=0.25, first=0.25)
  )
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(config, config.stages.video, mesh)
  rows = jax.jit(objective.draw)(batch(400), jax.random.key(0), 0)
  shares, given = np.asarray(rows['shares']), np.asarray(rows['given'])
  assert ((shares >= 0) & (shares <= 1)).all()
  assert not given.all(axis=1).any()
  first = given[:, 0] & ~given[:, 1:].any(axis=1)
  assert 0.25 <= first.mean() <= 0.5  # 'context' has some, too.
  # Of 'independent', every frame has its own share.
  own = np.ptp(np.where(given, shares[:, 1:2], shares), axis=1) > 1e-6
  assert abs(own.mean() - 0.25) < 0.02
  # cos(pi u / 2) of uniform u has the mean 2 / pi; times are stratified.
  assert abs(shares[:, 1].mean() - 2 / np.pi) < 0.02


def test_eight_devices_do_what_one_does():
  config = make_config(
    frame_levels=dict(shared=0.5, context=0.25, independent=0.25)
  )
  params = None
  found = []
  for devices in (1, 8):
    run = tiny_runs.Run(config, params, devices=devices)
    run.frozen = frozen()
    params = run.initial.params
    state, (metrics,) = run.train([batch(8)])
    found.append((state, metrics))
  (one, metrics), (other, sharded) = found
  assert metrics['loss'][1] == sharded['loss'][1] > 0
  np.testing.assert_allclose(*(m['loss'][0] for m in (metrics, sharded)), 1e-4)
  for name, leaf in trees.flatten(one.params).items():
    np.testing.assert_allclose(
      trees.flatten(other.params)[name], leaf, atol=1e-5, err_msg=name
    )


def test_operations_are_counted():
  """In closed form, of the network's products: three times those forwards."""
  found = []
  for width in (16, 32):
    config = make_config(batch=4)
    config.model.transformer.width = width
    found.append(costs.count(config, 'video'))
  positions = tiny_runs.FRAMES * 4

  def products(d, head=8, heads_of=8):
    attention = 4 * d * d + 2 * positions * d  # Joint: qkv, out; q k, v.
    film = 2 * 8 * 2 * d / 4  # Two of them, once a frame of 4 positions.
    return attention + 8 * d * d + film + d * sum(SIZES)

  difference = (products(32) - products(16)) * positions * 4 * 2 * 3
  np.testing.assert_allclose(
    1e12 * (found[1].tflop - found[0].tflop), difference, rtol=0.02
  )
  assert found[0].kept < found[1].kept
  assert found[0].parameters < found[1].parameters
