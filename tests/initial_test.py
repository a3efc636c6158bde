"""Initial values drawn together are those that each array has by itself."""

from flax import nnx
import jax
from jax.extend import core
import numpy as np
import pytest

from configs import synthetic
from vdm import models
from vdm.common import trees
from vdm.models import initial

# Shorter and longer than a row, as long as one, longer than all; none is drawn
# with the third key.
SHAPES = {
  0: (3, 5),
  1: (256,),
  3: (257,),
  4: (2, 3, 7),
  5: (2**16 + 1,),
  6: (4, 1024),
}


def by_itself(key, number, shape):
  return jax.random.normal(jax.random.fold_in(key, number), shape)


def check(values, key):
  for number in range(max(SHAPES) + 1):
    give = values.params()
    if number in SHAPES:
      shape = SHAPES[number]
      found, wanted = give(shape), by_itself(key, number, shape)
      assert found.shape == shape and found.dtype == np.float32
      # Programs round differently: 4 ulp of the inverse error function.
      np.testing.assert_allclose(found, wanted, rtol=5e-7, atol=1e-7)


def test_each_array_is_what_it_would_be_by_itself():
  key = jax.random.key(7)
  check(initial.draw(key, SHAPES), key)


@pytest.mark.parametrize('implementation', ['rbg', 'unsafe_rbg'])
def test_other_generators_draw_as_many_values_as_there_are(implementation):
  key = jax.random.key(7, impl=implementation)
  values = initial.draw(key, SHAPES)
  found = []
  for number in range(max(SHAPES) + 1):
    give = values.params()
    if number in SHAPES:
      found.append(give(SHAPES[number]))
  assert [x.shape for x in found] == list(SHAPES.values())
  flat = np.concatenate([np.ravel(x) for x in found])
  assert abs(flat.mean()) < 0.02 and abs(flat.std() - 1) < 0.02
  assert len(np.unique(flat)) > 0.99 * len(flat)


def test_a_network_is_that_of_flax(monkeypatch):
  config = synthetic.get_config().model
  config.update(widths=(8, 16), head_size=8, embed_width=8)
  built = {}

  def functional(module, *args, **kwargs):
    built['flax'] = lambda key: module(
      *args, **kwargs, rngs=nnx.Rngs(params=key)
    )
    return original(module, *args, **kwargs)

  original = models.functional
  monkeypatch.setattr(models, 'functional', functional)
  network = models.make_unet(config, 4)
  key = jax.random.key(3)
  wanted = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(built['flax'](key))))
  found, wanted = trees.flatten(jax.jit(network.init)(key)), wanted(key)
  for path, leaf in trees.flatten(wanted).items():
    np.testing.assert_allclose(found[path], leaf, rtol=5e-7, atol=1e-7)


def draws(jaxpr):
  """Number of programs that draw bits, in all of a jaxpr."""
  count = 0
  for eqn in jaxpr.eqns:
    count += eqn.primitive.name == 'random_bits'
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: isinstance(x, core.Jaxpr)
    ):
      if isinstance(inner, (core.Jaxpr, core.ClosedJaxpr)):
        count += draws(getattr(inner, 'jaxpr', inner))
  return count


def test_a_network_is_drawn_in_few_programs():
  network = models.make_unet(synthetic.get_config().model, 8)
  assert len(jax.tree.leaves(network.abstract_params())) > 100
  jaxpr = jax.make_jaxpr(network.init)(jax.random.key(0))
  assert 1 <= draws(jaxpr.jaxpr) <= len(initial.ROWS) + 3
