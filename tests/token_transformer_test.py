"""The network of masked tokens: what it sees, and what it does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm.common import trees
from vdm.config import schema
from vdm.models import tokens as codes

LEVELS = (4, 3, 2)  # With at most 12 values a token: two groups.
SHAPE = (2, 3, 2, 2)  # b t h w.


@functools.cache
def network(joint=False, text='none', **options):
  config = schema.default().model
  config.update(
    kind='transformer', head_size=8, embed_width=8, num_classes=3, **options
  )
  config.transformer.update(width=16, depth=1, joint=joint, vocabulary=12)
  config.text.update(encoder=text, width=8, layers=0, vocabulary=6)
  made = models.make_network(config, 3, LEVELS)
  params = tiny_runs.randomise(made.abstract_params(), scale=1.0)
  apply = jax.jit(made.apply, static_argnums=4)

  def run(tokens, masked, cond=None, params=params):
    cond = {'label': jnp.array([0, 1])} if cond is None else cond
    return np.asarray(apply(params, tokens, masked, cond, jnp.float32))

  return params, run


def draw(seed=0):
  generator = np.random.default_rng(seed)
  tokens = generator.integers(0, (12, 2), (*SHAPE, 2)).astype(np.int32)
  masked = generator.random(SHAPE) < 0.5
  masked[0, 0, 0], masked[0, 0, 1] = True, False
  return tokens, masked


def test_every_group_has_its_logits():
  assert codes.group(LEVELS, 12) == ((4, 3), (2,))
  _, run = network()
  assert run(*draw()).shape == (*SHAPE, 12 + 2)


@pytest.mark.parametrize('joint', [False, True])
def test_masked_tokens_are_not_seen_and_others_are(joint):
  _, run = network(joint)
  tokens, masked = draw()
  other = draw(1)[0]
  logits = run(tokens, masked)
  hidden = np.where(masked[..., None], other, tokens)
  np.testing.assert_array_equal(run(hidden, masked), logits)
  # A known one reaches every position of every frame of its clip, over (t h w)
  # as over (h w) and then t, and no other clip.
  changed = tokens.copy()
  changed[0, 0, 1] = (changed[0, 0, 1] + 1) % (12, 2)
  moved = np.abs(run(changed, masked) - logits).max(axis=-1) > 0
  assert moved[0].all() and not moved[1].any()


@pytest.mark.parametrize('joint', [False, True])
def test_an_image_model_uses_nothing_that_is_temporal(joint):
  params, run = network(joint)
  tokens, masked = (x[:, :1] for x in draw())
  flat = trees.flatten(params)
  temporal = {path for path in flat if 'temporal' in path}
  assert bool(temporal) == (not joint)
  changed = {k: x + (k in temporal) for k, x in flat.items()}
  image = run(tokens, masked)
  again = run(tokens, masked, params=trees.unflatten(changed))
  np.testing.assert_array_equal(image, again)


def test_what_is_told_changes_the_logits():
  _, run = network()
  tokens, masked = draw()
  first, second, null = (
    run(tokens, masked, {'label': jnp.array([x, 1])}) for x in (0, 2, -1)
  )
  assert np.abs(first[0] - second[0]).max() > 1e-3
  assert np.abs(first[0] - null[0]).max() > 1e-3
  np.testing.assert_array_equal(first[1], second[1])


def test_it_reads_captions():
  _, run = network(text='learned')
  tokens, masked = draw()

  def told(*words):
    label = jnp.array([0, 1])
    return run(tokens, masked, {'label': label, 'words': jnp.array(words)})

  one, other = told([2, 3], [4, 0]), told([2, 5], [4, 0])
  assert np.abs(one[0] - other[0]).max() > 1e-3
  np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize('remat', ['block', 'dots'])
def test_rematerialising_changes_nothing(remat):
  tokens, masked = draw()
  wanted = network()[1](tokens, masked)
  found = network(remat=remat)[1](tokens, masked)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  assert network()[0].keys() == network(remat=remat)[0].keys()


def test_it_starts_by_knowing_nothing():
  config = schema.default().model
  config.kind = 'transformer'
  config.transformer.update(width=16, depth=1, vocabulary=12)
  made = models.make_network(config, 3, LEVELS)
  tokens, masked = draw()
  params = jax.jit(made.init)(jax.random.key(0))
  apply = jax.jit(made.apply, static_argnums=4)
  logits = apply(params, tokens, masked, {}, jnp.float32)
  np.testing.assert_array_equal(logits, 0.0)
