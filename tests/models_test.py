"""Networks as functions over plain nested dicts."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import tiny_runs

from vdm import models
from vdm.common import trees
from vdm.models import layers


class Chain(nnx.Module):
  """Linear layers whose order is not that of their names."""

  def __init__(self, rngs):
    self.order = ('z', 'a', 'm', 'block_10', 'block_2')
    for name in self.order:
      setattr(self, name, layers.Linear(4, 4, rngs=rngs))

  def __call__(self, x):
    for name in self.order:
      x = jnp.tanh(getattr(self, name)(x))
    return x


def test_a_network_computes_what_its_module_computes():
  network = models.functional(Chain)
  key, x = jax.random.key(0), jnp.arange(8.0).reshape(2, 4)
  params = network.init(key)
  module = Chain(nnx.Rngs(params=key))
  np.testing.assert_array_equal(network.apply(params, x), module(x))
  # The layers in the order of the module, by hand.
  y = np.asarray(x)
  for name in ('z', 'a', 'm', 'block_10', 'block_2'):
    layer = jax.tree.map(np.asarray, params[name])
    y = np.tanh(y @ layer['kernel'] + layer['bias'])
  np.testing.assert_allclose(network.apply(params, x), y, atol=1e-5)


def test_parameters_are_found_by_name():
  """nnx merges by position, in sorted order."""
  network = models.functional(Chain)
  params = network.init(jax.random.key(0))
  backwards = {k: dict(reversed(v.items())) for k, v in params.items()}
  backwards = dict(reversed(backwards.items()))
  x = jnp.arange(8.0).reshape(2, 4)
  np.testing.assert_array_equal(
    network.apply(backwards, x), network.apply(params, x)
  )


def test_parameters_are_plain_float32_arrays():
  config = tiny_runs.make_config()
  network = models.make_unet(config.model, 3)
  params = jax.eval_shape(network.init, jax.random.key(0))

  def check(node):
    if isinstance(node, jax.ShapeDtypeStruct):
      assert node.dtype == jnp.float32
      return
    assert type(node) is dict
    for name, child in node.items():
      assert isinstance(name, str) and '/' not in name
      check(child)

  check(params)
  assert 'stem/kernel' in trees.flatten(params)


def test_the_same_key_gives_the_same_parameters():
  network = models.functional(Chain)
  first, second, other = (network.init(jax.random.key(k)) for k in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, first, second)
  assert not np.array_equal(first['z']['kernel'], other['z']['kernel'])
  assert not np.array_equal(first['z']['kernel'], first['a']['kernel'])
