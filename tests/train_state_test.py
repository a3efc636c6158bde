"""What a training state holds before the first step."""

import jax
import numpy as np
import tiny_runs

from vdm.training import optim
from vdm.training import train_state

PARAMS = {
  'stem': {'kernel': np.ones((1, 1, 3, 4), np.float32)},
  'block': {'kernel': np.ones((4, 4), np.float32), 'bias': np.ones(4, 'f')},
}


def test_averages_begin_at_the_live_values_in_buffers_of_their_own():
  config = tiny_runs.make_config()
  params = jax.tree.map(jax.numpy.asarray, PARAMS)
  state = jax.jit(lambda p: train_state.create(config, p))(params)
  assert set(state.ema) == {'0.050', '0.100'}
  flat = optim.flatten(PARAMS)
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
    state = train_state.create(config, PARAMS)
    for leaf in jax.tree.leaves(state):
      assert leaf.dtype == np.float32 or (
        leaf.dtype == np.int32 and leaf.ndim == 0
      )
    assert set(state.opt_state) == set(optim.flatten(PARAMS))


def test_an_average_comes_as_the_network_takes_it():
  config = tiny_runs.make_config()
  state = train_state.create(config, PARAMS)
  state.ema['0.100']['block/bias'] = np.full(4, 2, np.float32)
  params = train_state.averaged(state, 0.10)
  assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
  assert params['block']['bias'][0] == 2
  assert train_state.averaged(state, 0.05)['block']['bias'][0] == 1
