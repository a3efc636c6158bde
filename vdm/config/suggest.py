"""Suggests a valid name for a misspelt one."""

from collections.abc import Iterable
import difflib


def nearest(name: str, valid: Iterable[str]) -> str:
  """Returns the valid name nearest to `name`.

  Keys are compared whole and by their last part, so a key in the wrong group
  is found as well: 'model.steps' finds 'sample.steps'.
  """
  valid = list(valid)

  def similarity(candidate):
    whole = difflib.SequenceMatcher(None, name, candidate).ratio()
    last = difflib.SequenceMatcher(
      None, name.rpartition('.')[2], candidate.rpartition('.')[2]
    ).ratio()
    return whole + last

  return max(valid, key=similarity)
