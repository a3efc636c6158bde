"""Text in the network: attention to it, and what null and padding mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from vdm import models
from vdm.common import trees
from vdm.config import schema
from vdm.diffusion import conditions
from vdm.models import attention
from vdm.models import text

LEVELS = np.array([[-3.0, 1.0], [2.0, -20.0]], np.float32)
WORDS = np.array([[2, 5, 3, 0, 0], [4, 0, 0, 0, 0]], np.int32)
NULL = np.zeros_like(WORDS)
FEATURES = 6


def make_network(encoder, **changes):
  """One level on latents of 3 channels."""
  options = schema.default().model
  options.update(
    widths=(8,),
    blocks=(0,),
    attention_levels=(0,),
    temporal_levels=(0,),
    temporal_attention_levels=(),
    head_size=4,
    embed_width=8,
  )
  options.text.update(
    encoder=encoder, width=8, layers=1, vocabulary=6, features=FEATURES
  )
  options.update(changes)
  return models.make_unet(options, 3)


def clips():
  shape = (2, 2, 4, 4, 3)
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def told(encoder, words=WORDS):
  """Conditions: of the pretrained kind, tokens that are one for each word."""
  if encoder == 'learned':
    return {'words': words}
  table = np.random.default_rng(1).normal(size=(8, FEATURES))
  return {'text': np.float32(table)[words], 'text_mask': words != 0}


@pytest.fixture(scope='module', params=['learned', 'pretrained'])
def case(request):
  network = make_network(request.param)
  initial = jax.jit(network.init)(jax.random.key(0))
  apply = jax.jit(network.apply)

  def run(params, cond):
    return np.asarray(apply(params, clips(), LEVELS, cond))

  return request.param, initial, tiny_runs.randomise(initial), run


def test_text_attention_is_the_formula_over_the_tokens_there_are():
  module, params = tiny_runs.random_module(
    lambda rngs: attention.CrossAttention(6, 5, 4, rngs=rngs)
  )
  random = np.random.default_rng(0)
  x, tokens = random.normal(size=(2, 7, 6)), random.normal(size=(2, 3, 5))
  mask = np.array([[True, False, True], [True, False, False]])
  found = module(jnp.float32(x), jnp.float32(tokens), jnp.asarray(mask))

  def normal(x, scale):
    return scale * x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)

  p = jax.tree.map(np.float64, params)
  for row in range(2):
    q = normal(x[row] @ p['q']['kernel'], p['scale'][0])
    # Only the tokens that are there, so that no mask is needed.
    kv = (tokens[row][mask[row]] @ p['kv']['kernel']).reshape(-1, 2, 6)
    logits = q @ normal(kv[:, 0], p['scale'][1]).T / np.sqrt(6)
    weights = np.exp(logits)
    y = weights / weights.sum(-1, keepdims=True) @ kv[:, 1]
    wanted = y @ p['out']['kernel'] + p['out']['bias']
    np.testing.assert_allclose(found[row], wanted, atol=2e-5)


def test_several_heads_attend_by_themselves():
  """With values of one head only, the other half of the channels is zero."""
  module, params = tiny_runs.random_module(
    lambda rngs: attention.CrossAttention(8, 5, 4, rngs=rngs)
  )
  assert module.heads == 2
  kernel = np.array(params['kv']['kernel'])
  kernel[:, 12:] = 0  # Values of the second head.
  module.kv.kernel[...] = jnp.asarray(kernel)
  module.out.kernel[...] = jnp.eye(8)
  module.out.bias[...] = jnp.zeros(8)
  random = np.random.default_rng(0)
  x, tokens = random.normal(size=(1, 7, 8)), random.normal(size=(1, 3, 5))
  y = module(jnp.float32(x), jnp.float32(tokens), jnp.ones((1, 3), bool))
  assert (y[..., 4:] == 0).all() and (y[..., :4] != 0).all()


def test_text_changes_nothing_before_training(case):
  encoder, initial, _, run = case
  # All that ends a branch starts at zero; only the head is made to show.
  params = jax.tree.map(np.array, initial)
  kernel = params['head_conv']['kernel']
  params['head_conv']['kernel'] = np.ones_like(kernel)
  flat = trees.flatten(params)
  flat |= {
    path: np.zeros_like(x)
    for path, x in flat.items()
    if 'embed_caption' in path
  }
  params = trees.unflatten(flat)
  with_text, without = (run(params, told(encoder, w)) for w in (WORDS, NULL))
  assert np.abs(with_text).max() > 0.1
  np.testing.assert_array_equal(with_text, without)
  plain = make_network('none')
  shared = plain.abstract_params()
  assert trees.flatten(shared).keys() < trees.flatten(params).keys()
  own = trees.unflatten(
    {path: trees.flatten(params)[path] for path in trees.flatten(shared)}
  )
  np.testing.assert_allclose(
    plain.apply(own, clips(), LEVELS, {}), with_text, atol=1e-5
  )


def test_both_words_and_their_order_matter(case):
  encoder, _, params, run = case
  first = run(params, told(encoder))
  for changed in ([2, 4, 3, 0, 0], [5, 2, 3, 0, 0], [2, 5, 0, 0, 0]):
    words = np.array([changed, WORDS[1]], np.int32)
    other = run(params, told(encoder, words))
    assert np.abs(other - first)[0].max() > 1e-4
    # Rows do not know each other.
    np.testing.assert_allclose(other[1], first[1], atol=1e-6)


def test_padding_beyond_the_mask_changes_nothing(case):
  encoder, _, params, run = case
  cond = told(encoder)
  if encoder == 'learned':
    longer = {'words': np.pad(WORDS, [(0, 0), (0, 4)])}
  else:
    longer = {
      'text': np.pad(cond['text'], [(0, 0), (0, 4), (0, 0)]),
      'text_mask': np.pad(cond['text_mask'], [(0, 0), (0, 4)]),
    }
    longer['text'][~longer['text_mask']] = 7.0
  np.testing.assert_allclose(run(params, longer), run(params, cond), atol=1e-5)


def test_not_told_is_the_null_of_the_conditions(case):
  encoder, _, params, run = case
  cond = jax.tree.map(jnp.asarray, told(encoder))
  dropped = conditions.drop(cond, jax.random.key(0), {'text': 1.0})
  null = run(params, conditions.null(cond))
  np.testing.assert_array_equal(run(params, dropped), null)
  np.testing.assert_allclose(null, run(params, told(encoder, NULL)), atol=1e-6)
  assert np.isfinite(null).all()
  assert np.abs(null - run(params, cond)).max() > 1e-4


def test_gradients_are_finite_also_without_any_word(case):
  encoder, _, params, _ = case
  network = make_network(encoder)

  @jax.jit
  @jax.grad
  def gradients(params, cond):
    return jnp.square(network.apply(params, clips(), LEVELS, cond)).sum()

  for words in (WORDS, NULL):
    grads = gradients(params, told(encoder, words))
    flat = trees.flatten(grads)
    assert all(np.isfinite(x).all() for x in flat.values())
    assert any('text/attention' in path for path in flat)


def test_the_encoder_masks_its_own_attention():
  module, _ = tiny_runs.random_module(
    lambda rngs: text.TextEncoder(
      8,
      encoder='learned',
      width=8,
      depth=2,
      head_size=4,
      vocabulary_size=6,
      features=1,
      rngs=rngs,
    )
  )
  tokens, mask = module({'words': WORDS}, jnp.float32)
  alone, _ = module({'words': WORDS[:1, :3]}, jnp.float32)
  np.testing.assert_array_equal(mask[:, 0], True)
  np.testing.assert_array_equal(mask[:, 1:], WORDS != 0)
  np.testing.assert_allclose(tokens[0, :4], alone[0], atol=1e-5)


def test_without_text_the_network_is_what_it_was():
  """Runs of before there were captions resume."""
  names = trees.flatten(make_network('none').abstract_params())
  assert not [name for name in names if 'text' in name]
  with_text = trees.flatten(make_network('learned').abstract_params())
  assert names.keys() < with_text.keys()


def test_the_pooled_vector_has_the_direction_of_the_sum_and_one_length():
  random = np.random.default_rng(0)
  tokens = random.normal(size=(20, 9, 16)).astype(np.float32)
  mask = np.arange(9)[None] < random.integers(1, 10, (20, 1))
  sums = np.stack(
    [x[there].sum(axis=0) for x, there in zip(tokens, mask, strict=True)]
  )
  pooled = text.pool(jnp.asarray(tokens), jnp.asarray(mask))
  root = np.sqrt(np.square(sums).mean(axis=1, keepdims=True))
  np.testing.assert_allclose(pooled, text.POOLED * sums / root, atol=1e-5)


@pytest.mark.parametrize('encoder', ['learned', 'pretrained'])
def test_words_reach_the_pooled_vector_before_training(encoder):
  """Attention starts at zero, so the first token alone knows none of them."""
  network = models.functional(
    text.TextEncoder,
    8,
    encoder=encoder,
    width=8,
    depth=1,
    head_size=4,
    vocabulary_size=6,
    features=FEATURES,
  )
  params = network.init(jax.random.key(0))
  first, second = (
    text.pool(*network.apply(params, told(encoder, words), jnp.float32))
    for words in (WORDS, np.where(WORDS, WORDS % 5 + 1, 0))
  )
  assert (np.abs(first - second).max(axis=1) > 0.1).all()


def test_parameters_of_other_names_are_refused():
  """An earlier version named what read the mean of the words otherwise."""
  network = make_network('learned')
  params = network.init(jax.random.key(0))
  params['embed_pooled'] = params['text'].pop('embed_caption')
  with pytest.raises(ValueError) as raised:
    network.apply(params, clips(), LEVELS, told('learned'))
  names = 'text/embed_caption/bias, text/embed_caption/kernel'
  assert f'missing {names}' in str(raised.value)
  assert 'not known embed_pooled/bias, embed_pooled/kernel' in str(raised.value)
