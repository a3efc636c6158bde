"""Assigns whole recordings to training or validation, by their content.

Files that belong together, by a pattern over their names or because one
contains a near-duplicate of the other, form a group, and a group is in one
split. Which one depends on the content of the files, and not on their names or
their order.
"""

from collections.abc import Iterable, Sequence
import re


def group_name(path: str, pattern: str) -> str:
  """Returns the name of the recording that a file belongs to.

  Args:
    path: of the file in its source.
    pattern: a regular expression over the path; its first bracketed group,
      or all that it matches, is the name. Where it is empty or does not match
      the file is a recording of its own.
  """
  match = re.search(pattern, path) if pattern else None
  if not match:
    return path
  return match[1] if match.re.groups else match[0]


def merge(names: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
  """Returns the group of each item after groups with a common pair are joined.

  Args:
    names: the group of each item.
    pairs: of items whose groups are joined; the first name is that of both.
  """
  parent = {name: name for name in names}

  def root(name):
    while parent[name] != name:
      parent[name] = parent[parent[name]]
      name = parent[name]
    return name

  for i, j in pairs:
    low, high = sorted((root(names[i]), root(names[j])))
    parent[high] = low
  return [root(name) for name in names]


def held_out(
  groups: Sequence[str], digests: Sequence[str], share: float
) -> set[str] | None:
  """Returns the groups for validation.

  Args:
    groups: of each file.
    digests: of each file's content, on which the choice depends, so that new
      files hardly move the others; groups with equal content stay together.
    share: of the groups; at least one is chosen.

  Returns:
    Names of groups; None where there is only one content, which cannot be in
    both splits, or `share` is 0.
  """
  content = {}
  for group, digest in zip(groups, digests):
    content[group] = min(digest, content.get(group, digest))
  ordered = sorted(set(content.values()))
  if len(ordered) < 2 or not share:
    return None
  number = min(max(1, int(len(ordered) * share)), len(ordered) - 1)
  chosen = set(ordered[:number])
  return {group for group, digest in content.items() if digest in chosen}
