"""The compiled step: accumulation, meshes, donation and what stays frozen."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

from vdm.common import power_averages
from vdm.common import trees
from vdm.config import recipes
from vdm.multihost import arrays
from vdm.planning import programs
from vdm.training import flops
from vdm.training import objectives
from vdm.training import optim
from vdm.training import packing
from vdm.training import sharding
from vdm.training import stages
from vdm.training import train_state
from vdm.training import train_step

BATCHES = [tiny_runs.batch(seed=seed) for seed in range(3)]
MIXED = dict(shared=0.4, context=0.4, independent=0.2)


def mixed_config(**stage):
  """Everything random at once: levels, given frames, labels and dropout."""
  config = tiny_runs.make_config(frame_levels=MIXED, **stage)
  config.model.update(dropout=0.2, label_dropout=0.3)
  return config


@pytest.fixture(scope='module')
def one_device():
  """The run that others must equal: one device, one part."""
  run = tiny_runs.Run(mixed_config())
  return run, *run.train(BATCHES)


def assert_same_training(found, wanted):
  """Compares three steps.

  Sums in another order differ by some 1e-7 of their terms. Adam divides a
  gradient by its own size, so that where one nearly cancels, the rounding
  decides the direction of a step of up to 1e-3: hence an absolute tolerance
  for parameters of a twentieth of what they may move.
  """
  state, metrics = found
  wanted_state, wanted_metrics = wanted
  for values, others in zip(metrics, wanted_metrics):
    assert values.keys() == others.keys()
    for name, value in values.items():
      np.testing.assert_allclose(
        value, others[name], rtol=2e-4, atol=1e-5, err_msg=name
      )
  for found_tree, wanted_tree in (
    (state.params, wanted_state.params),
    (state.ema, wanted_state.ema),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
      found_tree,
      wanted_tree,
    )


def test_the_batch_has_given_frames_and_dropped_labels(one_device):
  """What the tests below rely on."""
  run, _, metrics = one_device
  rows = jax.jit(run.objective.draw)(BATCHES[0], jax.random.key(3), 0)
  assert 0 < rows['loss_mask'].mean() < 1
  assert -1 in rows['label'] and set(np.unique(rows['label'])) - {-1}
  # Frames count, not clips: 8 x 3 less those that were given.
  assert {m['loss'][1] < 24 for m in metrics} == {True}
  assert all(np.isfinite(m['grad_norm']) for m in metrics)
  bins = [v for k, v in metrics[0].items() if k.startswith('loss/')]
  np.testing.assert_allclose(
    np.sum(bins, axis=0), metrics[0]['loss'], rtol=1e-5
  )


def test_a_step_is_optax_on_the_gradient_of_the_mean(one_device):
  run, *_ = one_device
  initial = run.initial
  # In the middle of a run: five updates old, and averages that lag behind.
  run.initial = initial._replace(
    opt_state={
      path: optim.Slot(np.int32(5), slot.moments)
      for path, slot in initial.opt_state.items()
    },
    ema={
      name: {path: x + 1 for path, x in average.items()}
      for name, average in initial.ema.items()
    },
  )
  arguments = run.arguments(run.begin(), BATCHES[0], 1)
  run.initial = initial
  *_, rows, n, key = arguments
  rows = run.objective.draw(rows, jax.random.fold_in(key, n), n)

  def mean(params):
    total, count, _ = run.objective.loss(params, tiny_runs.autoencoder(), rows)
    return total / count

  grads = jax.jit(jax.grad(mean))(initial.params)
  norm = sum(np.square(g).sum() for g in jax.tree.leaves(grads)) ** 0.5
  transform = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(1e-3, b1=0.9, b2=0.99)
  )
  assert norm > 1  # So that clipping matters.
  updates, _ = jax.jit(transform.update)(grads, transform.init(grads))
  found, metrics = run.step(*arguments)
  found = run.unpack(found)
  np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-4)
  np.testing.assert_allclose(metrics['learning_rate'], 1e-3, rtol=1e-6)
  live, updates = trees.flatten(found.params), trees.flatten(updates)
  start = trees.flatten(initial.params)
  for path, value in live.items():
    move = value - start[path]
    # See `assert_same_training`; a parameter is known to 1e-7 of itself.
    np.testing.assert_allclose(move, updates[path], rtol=1e-2, atol=5e-5)
    for width in (0.05, 0.10):
      beta = (1 - 1 / 6) ** (power_averages.gamma(width) + 1)
      wanted = value + beta * (start[path] + 1 - value)
      average = found.ema[f'{width:.3f}'][path]
      np.testing.assert_allclose(average, wanted, atol=1e-5)
    assert found.opt_state[path].count == 6


def test_parts_on_two_devices_equal_the_full_batch(one_device):
  _, *wanted = one_device
  run = tiny_runs.Run(mixed_config(accumulate=4), devices=2)
  assert_same_training(run.train(BATCHES), wanted)


@pytest.mark.parametrize('fsdp', [1, 4])
def test_eight_devices_equal_one(one_device, fsdp, monkeypatch):
  _, *wanted = one_device
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 64)
  run = tiny_runs.Run(mixed_config(), devices=8, fsdp=fsdp)
  split = [
    leaf
    for leaf in jax.tree.leaves(run.begin())
    if not leaf.sharding.is_fully_replicated
  ]
  assert bool(split) == (fsdp > 1)
  assert_same_training(run.train(BATCHES), wanted)
  # Parameters are gathered and gradients summed, and no activation moves.
  parts = [
    leaf
    for leaf in jax.tree.leaves(run.begin().params)
    if not leaf.sharding.is_fully_replicated
  ]
  arguments = run.arguments(run.begin(), BATCHES[0], 0)
  text = run.step.lower(*arguments).compile().as_text()
  found = [
    (launch.kind, launch.touched)
    for launch in programs.launches(text)
    if launch.kind in programs.COLLECTIVES
  ]
  # What is drawn for a batch of 8 x 3 frames is smaller than any part.
  large = [kind for kind, touched in found if touched >= 300]
  assert large.count('all-gather') == len(parts), found
  assert 'all-to-all' not in large and 'collective-permute' not in large
  assert 'all-reduce' in large


@pytest.mark.parametrize('fsdp', [1, 4])
def test_gradients_are_summed_over_devices_in_float32(fsdp, monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 64)
  config = mixed_config()
  config.train.compute_dtype = 'bfloat16'
  run = tiny_runs.Run(config, devices=8, fsdp=fsdp)
  arguments = run.arguments(run.begin(), BATCHES[0], 0)
  dtypes = {'dot_general': set(), 'psum': set(), 'reduce_scatter': set()}

  def collect(jaxpr):
    for equation in jaxpr.eqns:
      for name, found in dtypes.items():
        if equation.primitive.name.startswith(name):
          found |= {str(x.aval.dtype) for x in equation.invars}
      for inner in flops.inner_jaxprs(equation.params):
        collect(inner)

  collect(jax.make_jaxpr(run.step)(*arguments).jaxpr)
  assert 'bfloat16' in dtypes['dot_general']
  assert 'float32' in dtypes['psum'] and 'bfloat16' not in dtypes['psum']
  assert dtypes['reduce_scatter'] == ({'float32'} if fsdp > 1 else set())


def test_the_state_is_donated_and_nothing_else(one_device):
  run, *_ = one_device
  arguments = run.arguments(run.begin(), BATCHES[0], 0)
  run.step(*arguments)
  state, frozen, rows, n, key = arguments
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
  kept = jax.tree.leaves((frozen, rows, n, key))
  assert not any(leaf.is_deleted() for leaf in kept)


def test_the_same_step_gives_the_same_bits(one_device):
  run, state, metrics = one_device
  again, values = run.train(BATCHES)
  jax.tree.map(np.testing.assert_array_equal, again, state)
  jax.tree.map(np.testing.assert_array_equal, values, metrics)


@pytest.mark.parametrize('name, clip_norm', [('adamw', 1.0), ('muon', 0.0)])
def test_a_step_that_is_not_finite_is_as_if_it_had_not_been(name, clip_norm):
  """Parameters, moments, counts and averages, to the bit."""
  config = mixed_config()
  config.optim.update(name=name, clip_norm=clip_norm, weight_decay=0.1)
  run = tiny_runs.Run(config)

  def train(steps):
    state, skipped = run.begin(), []
    for n in steps:
      arguments = run.arguments(state, BATCHES[n % 3], n)
      if n == 2:  # What the objective works in: all of the step is NaN.
        arguments = (arguments[0], poisoned(arguments[1]), *arguments[2:])
      state, metrics = run.step(*arguments)
      skipped.append(int(metrics['skipped']))
      assert np.isfinite(metrics['param_norm'])
      assert np.isfinite(metrics['grad_norm']) == (n != 2)
    return run.unpack(state), skipped

  def poisoned(frozen):
    stats = {k: v * np.float32('nan') for k, v in frozen['stats'].items()}
    return {**frozen, 'stats': stats}

  state, skipped = train([0, 1, 2, 3, 4])
  wanted, _ = train([0, 1, 3, 4])
  assert skipped == [0, 0, 1, 0, 0]
  jax.tree.map(np.testing.assert_array_equal, state, wanted)
  counts = {int(slot.count) for slot in state.opt_state.values()}
  assert counts == {4}


def test_the_step_lowers_without_arrays():
  config = mixed_config()
  mesh = sharding.make_mesh(2)
  stage = config.stages.video
  objective = objectives.make_objective(config, stage, mesh)
  params = objective.abstract_params()

  def create(params):
    return train_state.create(config.optim, params)

  state = jax.eval_shape(create, params)
  layout = packing.plan(state, [trees.flatten(params)])
  state = jax.eval_shape(functools.partial(packing.pack, layout), state)
  state = sharding.abstract(state, sharding.tree_sharding(mesh, state))
  copies, rows = arrays.replicated(mesh), arrays.batch_sharding(mesh)

  def struct(x, where):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  batch = {k: struct(v, rows) for k, v in tiny_runs.batch().items()}
  frozen, n, key = jax.tree.map(
    lambda x: struct(x, copies),
    (tiny_runs.autoencoder(), np.int32(0), jax.random.key(0)),
  )
  step = train_step.make_train_step(
    config.optim, stage, objective, layout, 0, mesh, state
  )
  lowered = step.lower(state, frozen, batch, n, key)
  new_state, metrics = lowered.out_info

  def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

  assert shapes(new_state) == shapes(state)
  assert metrics['loss'][0].shape == ()
  assert 'mhlo.num_partitions = 8' in lowered.as_text()


def changed_paths(before, after):
  """Paths whose value changed, of whatever is kept of each parameter."""
  changed = {}
  for name, old, new in (
    ('params', trees.flatten(before.params), trees.flatten(after.params)),
    ('opt_state', before.opt_state, after.opt_state),
    *((k, before.ema[k], after.ema[k]) for k in before.ema),
  ):
    changed[name] = {
      path
      for path in old
      if not all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(old[path]), jax.tree.leaves(new[path]))
      )
    }
  return changed


def test_single_frames_leave_all_that_is_temporal_alone():
  """Muon would move a zero gradient's momentum at full size."""
  config = tiny_runs.make_config(image_fraction=0.5)
  config.optim.update(name='muon', weight_decay=0.1)
  stage = config.stages.video
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(config, stage, mesh)
  params = objective.abstract_params()
  trained = stages.trained_paths(params, stage, objective.excluded_paths(True))
  run = tiny_runs.Run(config, trained=trained)
  # In the middle of a stage: moments and counts are not zero.
  slots = {
    path: optim.Slot(np.int32(5), jax.tree.map(random_like, slot.moments))
    for path, slot in run.initial.opt_state.items()
  }
  run.initial = run.initial._replace(opt_state=slots)
  run.build()
  clips = tiny_runs.batch()
  frames = {
    'video': clips['video'].reshape(24, 1, 4, 4, 3),
    'label': clips['label'].repeat(3),
  }
  state, _ = run.train([frames])
  temporal = {p for p in trees.flatten(params) if 'temporal' in p}
  assert temporal
  changed = changed_paths(run.initial, state)
  for name, paths in changed.items():
    assert not paths & temporal, name
  assert changed['opt_state'] == trees.flatten(params).keys() - temporal


def random_like(leaf):
  """Random moments; the counts and coefficients stay."""
  if not np.issubdtype(leaf.dtype, np.floating) or leaf.ndim == 0:
    return leaf
  if leaf.shape[-1] == 3:  # Muon's own coefficients.
    return leaf
  generator = np.random.default_rng(leaf.size)
  return generator.uniform(0.1, 1, leaf.shape).astype(np.float32)


def test_the_frozen_stage_moves_the_conditioning_and_keeps_space():
  # This network has one level and no attention over space.
  fits = [p for p in recipes.SPATIAL if not re.search('attent|resample', p)]
  config = tiny_runs.make_config(frozen=tuple(fits))
  stage = config.stages.video
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  objective = objectives.make_objective(config, stage, mesh)
  params = objective.abstract_params()
  trained = stages.trained_paths(params, stage, objective.excluded_paths(False))
  run = tiny_runs.Run(config, trained=trained)
  state, _ = run.train(BATCHES[:1])
  changed = changed_paths(run.initial, state)
  assert changed['opt_state'] == set(trained)
  for name, paths in changed.items():
    assert paths <= set(trained), name
    assert 'embed_label' in paths, name
    assert 'middle_block/spatial/film/linear/kernel' in paths, name
    assert 'middle_block/temporal_conv_0/conv/kernel' in paths, name
  kernels = ('stem/kernel', 'middle_block/spatial/conv_in/kernel')
  assert not set(kernels) & set(trained)


def test_global_norm_is_that_of_all_values_in_float32():
  tree = {'a': jnp.full((3,), 2, jnp.bfloat16), 'b': jnp.array([[2.0]])}
  assert optax.global_norm(tree) == 4
  assert optax.global_norm(tree).dtype == jnp.float32
