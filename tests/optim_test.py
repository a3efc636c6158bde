"""The optimizer against optax over whole trees, and the schedule by hand."""

import image_unets_test as image_unets
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vdm import models
from vdm.common import trees
from vdm.config import schema
from vdm.training import optim
from vdm.training import packing
from vdm.training.train_state import TrainState

# Like a network's: first and last layers, a table, hidden matrices, norms.
SHAPES = {
  'stem': {'kernel': (3, 3, 2, 4), 'bias': (4,)},
  'embed_in': {'kernel': (4, 6)},
  'embed_label': (3, 6),
  'block': {
    'conv': {'kernel': (3, 3, 4, 8), 'bias': (8,)},
    'temporal': {'kernel': (3, 1, 4, 4)},
    'linear': {'kernel': (6, 5)},
    'scale': (4,),
  },
  'head_conv': {'kernel': (1, 1, 8, 2)},
}
HIDDEN = {
  'block/conv/kernel',
  'block/temporal/kernel',
  'block/linear/kernel',
}


# Kernels of every kind of network that AdamW updates, besides those of blocks.
OUTER = {
  'unet': {
    'stem',
    'stem_low',
    'head_conv',
    'embed_in',
    'embed_out',
    'embed_low',
    'embed_temporal_frame_rate',
    'embed_temporal_motion',
    'text/embed_features',
    'text/embed_caption',
  },
  'transformer': {
    'head',
    'embed_in',
    'embed_out',
    'text/embed_features',
    'embed_temporal_frame_rate',
    'embed_temporal_motion',
    'text/embed_caption',
  },
  'adm': {
    'image/stem',
    'image/head_conv',
    'image/embed_in',
    'image/embed_out',
    'temporal/embed_in',
    'temporal/embed_out',
    'temporal/embed_frame_rate',
    'temporal/embed_motion',
  },
}
OUTER['conditional'] = OUTER['adm']


def values(seed):
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: jnp.asarray(generator.normal(size=shape), jnp.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def options(**changes):
  config = schema.default().optim
  config.update(weight_decay=0.1, **changes)
  return config


def run(config, stage, paths, gradients, params, slots=None, rates=None):
  """Parameters {path: array} and slots after an update on each gradient."""
  slots = optim.init(config, params) if slots is None else slots
  state = TrainState(params, slots, {})
  layout = packing.plan(state, [paths], rates)
  factors = {group: x.rate for group, x in layout.items()}
  update = jax.jit(
    lambda *args: optim.update(config, stage, 0.5, *args, factors)
  )
  for gradient in gradients:
    state = packing.pack(layout, state)
    grads = packing.join(packing.selected(layout, 0), trees.flatten(gradient))
    new, new_slots = update(
      grads,
      {group: state.opt_state[group] for group in grads},
      {group: state.params[group] for group in grads},
    )
    state = state._replace(
      params={**state.params, **new}, opt_state={**state.opt_state, **new_slots}
    )
    state = packing.unpack(layout, state)
  return trees.flatten(state.params), state.opt_state


def run_optax(transform, gradients, params):
  state = transform.init(params)

  @jax.jit
  def update(gradient, state, params):
    updates, state = transform.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  for gradient in gradients:
    params, state = update(gradient, state, params)
  return params


def assert_close(actual, wanted):
  for path, value in wanted.items():
    np.testing.assert_allclose(
      actual[path], value, rtol=1e-5, atol=1e-6, err_msg=path
    )


@pytest.fixture(scope='module')
def gradients():
  return [values(seed) for seed in range(1, 6)]


def test_flatten_and_unflatten_are_inverse():
  params = values(0)
  flat = trees.flatten(params)
  assert 'block/conv/kernel' in flat and list(flat) == sorted(flat)
  again = trees.unflatten(flat)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  # By name, not by the order in which they are given.
  again = trees.unflatten(dict(reversed(flat.items())))
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_adamw_is_optax_adamw(gradients):
  config = options(name='adamw')
  stage = schema.stage(learning_rate=2e-2)
  params = values(0)
  live, slots = run(config, stage, trees.flatten(params), gradients, params)
  transform = optax.adamw(
    0.5 * 2e-2,
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    weight_decay=0.1,
    mask=lambda tree: jax.tree.map(lambda x: x.ndim >= 2, tree),
  )
  wanted = run_optax(transform, gradients, params)
  assert_close(live, trees.flatten(wanted))
  assert {int(slot.count) for slot in slots.values()} == {5}


def test_muon_is_optax_muon_on_hidden_matrices_and_adamw_elsewhere(gradients):
  config = options(name='muon', muon_learning_rate=5e-2)
  stage = schema.stage(learning_rate=2e-2)
  params = values(0)
  flat = trees.flatten(params)
  assert {p for p, x in flat.items() if optim.is_matrix(p, x)} == HIDDEN
  live, _ = run(config, stage, flat, gradients, params)

  # optax reshapes convolution kernels itself, told which axes are which.
  def dimensions(tree):
    return {
      path: optax.contrib.MuonDimensionNumbers(
        tuple(range(x.ndim - 1)), x.ndim - 1
      )
      for path, x in tree.items()
    }

  hidden = [{p: trees.flatten(g)[p] for p in HIDDEN} for g in gradients]
  muon = optax.contrib.muon(
    0.5 * 5e-2,
    beta=config.muon_momentum,
    weight_decay=0.1,
    muon_weight_dimension_numbers=dimensions,
  )
  wanted = run_optax(muon, hidden, {p: flat[p] for p in HIDDEN})
  # Newton and Schulz's iterations amplify the rounding of a reshape.
  for path in HIDDEN:
    np.testing.assert_allclose(live[path], wanted[path], atol=1e-4)
    # The moves are larger by far than that.
    assert np.abs(wanted[path] - flat[path]).max() > 1e-2

  adamw = options(name='adamw')
  others = flat.keys() - HIDDEN
  wanted, _ = run(adamw, stage, others, gradients, params)
  assert_close(live, {path: wanted[path] for path in others})


@pytest.mark.parametrize('kind', OUTER)
def test_muon_updates_the_matrices_of_blocks_alone(kind):
  told = dict(scalars=('frame_rate', 'motion'))
  if kind in ('adm', 'conditional'):
    name = {'adm': 'mixed', 'conditional': 'sd2'}[kind]
    config = image_unets.options(kind, name, **told)
    made = models.make_network(config, image_unets.CHANNELS[kind], ())
  else:
    config = schema.default().model
    config.update(kind=kind, num_classes=3, **told)
    config.text.update(encoder='pretrained', features=8)
    config.low.space_factor = 2
    made = models.make_network(config, 3, (4, 3, 2))
  flat = trees.flatten(made.abstract_params())
  kernels = {p.removesuffix('/kernel') for p in flat if p.endswith('/kernel')}
  muon = {
    p.removesuffix('/kernel') for p, x in flat.items() if optim.is_matrix(p, x)
  }
  assert kernels - muon == OUTER[kind]
  # So the projections of what is told are among them, and no table is.
  assert any('film' in path for path in muon)
  assert muon <= kernels


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_a_factor_on_the_rate_is_one_on_the_move(name, gradients):
  """To the bit, as 0.25 rounds nothing; of both optimizers and the decay."""
  config, stage = options(name=name), schema.stage(learning_rate=2e-2)
  chosen = ['block/conv/kernel', 'block/scale', 'stem/kernel', 'embed_label']
  rates, params = dict.fromkeys(chosen, 0.25), values(0)
  flat = trees.flatten(params)
  zero = jax.tree.map(jnp.zeros_like, params)
  slow, slots = run(config, stage, flat, gradients[:1], zero, rates=rates)
  fast, same = run(config, stage, flat, gradients[:1], zero)
  jax.tree.map(np.testing.assert_array_equal, slots, same)
  for path, x in fast.items():
    factor = rates.get(path, 1.0)
    np.testing.assert_array_equal(slow[path], factor * x, err_msg=path)
    assert np.any(x)
  # Adam's first direction is the sign of the gradient, by hand.
  slow, _ = run(config, stage, flat, gradients[:1], params, rates=rates)
  for path in ('stem/kernel', 'embed_label'):
    sign = np.sign(trees.flatten(gradients[0])[path])
    move = 0.5 * 2e-2 * 0.25 * (sign + config.weight_decay * flat[path])
    np.testing.assert_allclose(slow[path], flat[path] - move, atol=1e-6)


def test_muon_turns_a_gradient_into_an_orthogonal_matrix(gradients):
  config = options(name='muon', muon_learning_rate=1.0)
  config.weight_decay = 0.0
  stage, params = schema.stage(), values(0)
  live, _ = run(config, stage, ['block/linear/kernel'], gradients[:1], params)
  move = (
    live['block/linear/kernel'] - params['block']['linear']['kernel']
  ) / 0.5
  # Five iterations bring every singular value to within 0.3 of one.
  np.testing.assert_allclose(np.linalg.svd(move)[1], 1.0, atol=0.35)


def test_a_parameter_that_is_left_out_keeps_its_slot(gradients):
  config = options(name='muon')
  params = values(0)
  paths = [p for p in trees.flatten(params) if 'temporal' not in p]
  live, slots = run(config, schema.stage(), paths, gradients, params)
  initial = optim.init(config, params)['block/temporal/kernel']
  slot = slots['block/temporal/kernel']
  jax.tree.map(np.testing.assert_array_equal, slot, initial)
  assert live['block/temporal/kernel'] is params['block']['temporal']['kernel']
  assert int(slots['block/conv/kernel'].count) == 5


def test_a_parameter_that_joins_later_has_its_own_bias_correction(gradients):
  config = options(name='adamw')
  config.weight_decay = 0.0
  stage = schema.stage(learning_rate=4e-2)  # At a factor of 0.5.
  params = values(0)
  late, flat = 'block/scale', trees.flatten(params)
  early = [path for path in flat if path != late]
  live, slots = run(config, stage, early, gradients[:3], params)
  live, slots = run(
    config, stage, flat, gradients[3:], trees.unflatten(live), slots
  )
  transform = optax.adam(2e-2, b1=config.b1, b2=config.b2, eps=config.eps)
  since = [g['block']['scale'] for g in gradients[3:]]
  wanted = run_optax(transform, since, params['block']['scale'])
  assert_close(live, {late: wanted})
  assert int(slots[late].count) == 2


def test_learning_rate_warms_up_holds_and_cools_down():
  stage = schema.stage(steps=10, warmup=4, cooldown=0.5)
  found = [float(optim.learning_rate(stage, n)) for n in range(10)]
  wanted = [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  held = schema.stage(steps=10, warmup=0, cooldown=0.0)
  assert [float(optim.learning_rate(held, n)) for n in (0, 5, 9)] == [1, 1, 1]
  whole = schema.stage(steps=4, warmup=0, cooldown=1.0)
  found = [float(optim.learning_rate(whole, n)) for n in range(4)]
  np.testing.assert_allclose(found, [1, 0.75, 0.5, 0.25], rtol=1e-6)


def test_clipping_scales_to_the_limit_and_no_further():
  grads = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([[4.0]])}
  clipped = optim.clip(grads, jnp.float32(5.0), 1.0)
  np.testing.assert_allclose(clipped['a'], [0.6, 0.0], rtol=1e-6)
  np.testing.assert_allclose(clipped['b'], [[0.8]], rtol=1e-6)
  same = optim.clip(grads, jnp.float32(5.0), 6.0)
  jax.tree.map(np.testing.assert_array_equal, same, grads)
  assert optim.clip(grads, jnp.float32(5.0), 0.0) is grads
  zero = jax.tree.map(jnp.zeros_like, grads)
  zero = optim.clip(zero, jnp.float32(0.0), 1.0)
  assert not any(np.any(x) for x in jax.tree.leaves(zero))
