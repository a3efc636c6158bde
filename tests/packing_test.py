"""The packed state: what it holds, and that nothing computed changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdm.common import trees
from vdm.config import schema
from vdm.training import optim
from vdm.training import packing
from vdm.training import sharding
from vdm.training import train_state

SHAPES = {
  'a': {'kernel': (3, 5), 'bias': (5,)},
  'b': {'kernel': (40, 20), 'bias': (7,), 'scale': (2, 1, 4)},
  'c_temporal': {'bias': (6,), 'kernel': (6, 4)},
}
SMALL = 100  # Values; only b/kernel has more.


def normal(seed):
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: jnp.asarray(generator.normal(size=shape), jnp.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


@pytest.fixture(autouse=True)
def small_arrays(monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', SMALL)


def options(name):
  config = schema.default().optim
  config.update(name=name, weight_decay=0.1, muon_learning_rate=0.05)
  return config


def make_state(name, counts=()):
  """A state with moments that differ, and some counts {path: value}."""
  state = train_state.create(options(name), normal(0))
  slots, seed = {}, 10
  for path, slot in state.opt_state.items():
    count = jnp.int32(dict(counts).get(path, 3))
    moments = {}
    for field, value in optim.fields(slot.moments).items():
      seed += 1
      random = np.random.default_rng(seed).uniform(0.1, 1, value.shape)
      moments[field] = jnp.asarray(random, jnp.float32)
    slots[path] = optim.Slot(
      count, slot.moments._replace(count=count, **moments)
    )
  return state._replace(opt_state=slots)


PATHS = sorted(trees.flatten(SHAPES))
SPACE = [path for path in PATHS if 'temporal' not in path]


def test_what_is_small_and_has_one_history_is_one_array():
  state = make_state('adamw', {'a/bias': 1})
  layout = packing.plan(state, [PATHS, SPACE])
  found = [(group.trained, group.members) for group in layout.values()]
  assert found == [
    ((True, True), {'vectors': {'a/bias': (5,)}}),
    (
      (True, True),
      {
        'matrices': {'a/kernel': (3, 5), 'b/scale': (2, 1, 4)},
        'vectors': {'b/bias': (7,)},
        'b/kernel': {'b/kernel': (40, 20)},
      },
    ),
    (
      (True, False),
      {
        'vectors': {'c_temporal/bias': (6,)},
        'matrices': {'c_temporal/kernel': (6, 4)},
      },
    ),
  ]
  packed = packing.pack(layout, state)
  leaves = (len(jax.tree.leaves(x)) for x in (packed, state))
  # Six arrays and three counts, twice; of seven parameters.
  assert tuple(leaves) == (6 * 5 + 3 * 2, 7 * 7)
  assert packed.params['1']['matrices'].shape == (1, 15 + 8)
  assert packed.opt_state['0'].count == 1


def test_matrices_of_muon_stay_matrices():
  layout = packing.plan(make_state('muon'), [PATHS])
  names = {name for group in layout.values() for name in group.members}
  kernels = {path for path in PATHS if path.endswith('kernel')}
  assert names == kernels | {'vectors', 'matrices'}


def test_a_plan_survives_its_steps():
  """A run that resumes in the middle of a stage has the same program."""
  counts = {'a/bias': 1, 'b/kernel': 1}
  later = {path: counts.get(path, 3) + 5 for path in PATHS}
  plans = [
    packing.plan(make_state('adamw', values), [PATHS, SPACE])
    for values in (counts, later)
  ]
  assert plans[0] == plans[1]


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_unpacking_gives_every_bit_back(name):
  state = make_state(name, {'a/bias': 1})
  layout = packing.plan(state, [PATHS, SPACE])
  again = packing.unpack(layout, packing.pack(layout, state))
  assert jax.tree.structure(again) == jax.tree.structure(state)
  jax.tree.map(np.testing.assert_array_equal, again, state)
  # Large arrays are shared, not copied.
  assert again.params['b']['kernel'] is state.params['b']['kernel']


def update(name, layout, state, grads):
  """A state after one update, whatever layout it is computed in."""
  packed = packing.pack(layout, state)
  joined = packing.join(layout, trees.flatten(grads))
  stage = schema.stage(learning_rate=2e-2)
  rates = {group: x.rate for group, x in layout.items()}
  params, slots = optim.update(
    options(name),
    stage,
    0.5,
    joined,
    packed.opt_state,
    packed.params,
    rates,
  )
  return packing.unpack(layout, packed._replace(params=params, opt_state=slots))


def test_parameters_of_another_rate_are_another_group():
  state, rates = make_state('adamw'), {'a/kernel': 0.1, 'b/bias': 0.1}
  layout = packing.plan(state, [PATHS], rates)
  assert sorted(group.rate for group in layout.values()) == [0.1, 1.0]
  for group in layout.values():
    for path in packing.paths({'0': group}):
      assert rates.get(path, 1.0) == group.rate
  # Of parameters that no stage trains, there is no rate.
  assert packing.plan(state, [PATHS], {}) == packing.plan(state, [PATHS])


@pytest.mark.parametrize('name', ['adamw', 'muon'])
@pytest.mark.parametrize('rates', [{}, {'a/kernel': 0.1, 'b/bias': 0.1}])
def test_an_update_of_packed_arrays_is_that_of_each_alone(name, rates):
  """To the bit, with three histories."""
  state = make_state(name, {'a/bias': 1})
  alone = {
    path: packing.Group(
      (True,), {path: {path: leaf.shape}}, rates.get(path, 1.0)
    )
    for path, leaf in trees.flatten(state.params).items()
  }
  found, wanted = (
    jax.jit(functools.partial(update, name, layout))(state, normal(5))
    for layout in (packing.plan(state, [PATHS, SPACE], rates), alone)
  )
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  assert int(found.opt_state['a/bias'].count) == 2
  assert int(found.opt_state['b/bias'].moments.count) == 4
  assert not np.array_equal(
    found.params['a']['bias'], state.params['a']['bias']
  )


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_a_stage_gives_no_array_to_its_step_twice(name):
  """Parameters of one history become two groups where a stage freezes some."""
  state = make_state(name)
  whole = packing.plan(state, [PATHS, PATHS])
  unpacked = packing.unpack(whole, packing.pack(whole, state))
  parts = packing.plan(unpacked, [PATHS, SPACE])
  assert len(parts) > len(whole)
  leaves = jax.tree.leaves(packing.pack(parts, unpacked))
  places = [leaf.unsafe_buffer_pointer() for leaf in leaves]
  assert len(set(places)) == len(places)
