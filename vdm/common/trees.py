"""Nested dicts as flat ones, by '/'-joined path: the names of parameters.

Keys contain no '/'. For any other tree see `checkpoints.manifest.named_leaves`.
"""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {path: leaf} of a nested dict, in jax's order: by sorted keys."""
  leaves = {}
  for key in sorted(tree):
    if isinstance(tree[key], Mapping):
      leaves |= flatten(tree[key], f'{prefix}{key}/')
    else:
      leaves[prefix + key] = tree[key]
  return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the nested dict of {path: leaf}; the inverse of `flatten`."""
  tree = {}
  for path, leaf in leaves.items():
    *parents, last = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree
