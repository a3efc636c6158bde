"""Who is for training and who for validation: whole recordings, by content.

Files that belong together, by a pattern over their names, by a manifest or
because one holds a near-duplicate of the other, form a group, and a group
stands on one side. Which side depends on what the files contain and not on
how they are called or when they came.
"""

from collections.abc import Iterable, Sequence
import re


def group_name(path: str, pattern: str) -> str:
  """Returns the name of the recording that a file belongs to.

  Args:
    path: of the file in its source.
    pattern: a regular expression over the path; its first bracketed group,
      or all that it matches, is the name. Where it is empty or matches
      nothing the file is a recording of its own.
  """
  match = re.search(pattern, path) if pattern else None
  if not match:
    return path
  return match[1] if match.re.groups else match[0]


def merge(names: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
  """Returns the names of groups after those with a common pair are joined.

  Args:
    names: the group of each item.
    pairs: of items whose groups are one; it is called by its first name.
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
    digests: of each file's content, which the choice goes by, so that new
      files hardly move the others; groups with equal content go together.
    share: of the groups; at least one is chosen.

  Returns:
    Names of groups; None where all content is that of one group, which cannot
    be on both sides.
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
