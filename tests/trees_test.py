"""Paths of nested dicts, against jax's own."""

import jax

from vdm.common import trees

TREE = {'b': {'z': 1, 'a': {'c': 2}}, 'a': 3, 'b_2': {'x': 4}}


def test_order_and_names_are_those_of_jax():
  leaves = jax.tree_util.tree_leaves_with_path(TREE)
  wanted = {'/'.join(entry.key for entry in path): x for path, x in leaves}
  assert list(trees.flatten(TREE).items()) == list(wanted.items())


def test_unflatten_inverts():
  assert trees.unflatten(trees.flatten(TREE)) == TREE
  assert trees.unflatten({}) == trees.flatten({}) == {}
