"""What a training state holds before the first step."""

import jax
import numpy as np
import tiny_runs

from vdm.common import trees
from vdm.training import train_state

PARAMS = {
  'stem': {'kernel': np.ones((1, 1, 3, 4), np.float32)},
  'block': {'kernel': np.ones((4, 4), np.float32), 'bias': np.ones(4, 'f')},
}


def test_averages_begin_at_the_live_values_in_buffers_of_their_own():
  config = tiny_runs.make_config()
  params = jax.tree.map(jax.numpy.asarray, PARAMS)
  state = jax.jit(lambda p: train_state.create(config.optim, p))(params)
  assert set(state.ema) == {'0.050', '0.100'}
  flat = trees.flatten(PARAMS)
  for average in state.ema.values():
    assert average.keys() == flat.keys()
    for path, value in average.items():
      np.testing.assert_array_equal(value, flat[path])
  # A donated buffer must not be shared.
  pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
  assert len(set(pointers)) == len(pointers)


def test_every_leaf_is_float32_or_a_count():
  for name in ('adamw', 'muon'):
    config = tiny_runs.make_config()
    config.optim.name = name
    state = train_state.create(config.optim, PARAMS)
    for leaf in jax.tree.leaves(state):
      assert leaf.dtype == np.float32 or (
        leaf.dtype == np.int32 and leaf.ndim == 0
      )
    assert set(state.opt_state) == set(trees.flatten(PARAMS))


def test_an_average_comes_as_the_network_takes_it():
  config = tiny_runs.make_config()
  state = train_state.create(config.optim, PARAMS)
  state.ema['0.100']['block/bias'] = np.full(4, 2, np.float32)
  params = train_state.averaged(state, 0.10)
  assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
  assert params['block']['bias'][0] == 2
  assert train_state.averaged(state, 0.05)['block']['bias'][0] == 1


def test_streams_differ_by_seed_and_by_name_alone():
  def draw(*names, seed=0):
    return int(jax.random.bits(train_state.stream(seed, *names)))

  values = [draw(), draw('stage'), draw('stage', 'video'), draw('init')]
  values += [draw(seed=1), draw('stage', 'video', seed=1)]
  assert len(set(values)) == len(values)
  assert draw('stage', 'video') == values[2]


def test_a_name_means_the_same_in_every_process():
  # Its CRC-32, written out: Python's own hash of a string is salted.
  expected = jax.random.fold_in(jax.random.key(0), np.uint32(0xC27C9369))
  stream = train_state.stream(0, 'stage')
  np.testing.assert_array_equal(
    jax.random.key_data(stream), jax.random.key_data(expected)
  )
