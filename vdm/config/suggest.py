"""Suggests a valid name for a misspelt one."""

from collections.abc import Iterable
import difflib

NEAR = 0.6  # Least similarity of names that one may stand for the other.
FEW = 12  # As many names are listed where none is near.


def nearest(name: str, valid: Iterable[str]) -> str | None:
  """Returns the valid name nearest to `name`; None if none is near.

  Keys are compared whole and by their last part, so a key in the wrong group
  is found as well: 'model.steps' finds 'sample.steps'. Initials stand for a
  last part: 'optim.lr' finds 'stages.video.learning_rate'.
  """
  last = name.rpartition('.')[2]

  def similarity(candidate):
    part = candidate.rpartition('.')[2]
    whole = difflib.SequenceMatcher(None, name, candidate).ratio()
    if '_' in part and last == ''.join(word[:1] for word in part.split('_')):
      return 1.0, whole
    return difflib.SequenceMatcher(None, last, part).ratio(), whole

  def near(candidate):
    part, whole = similarity(candidate)
    # Of 'stages.video.x' and 'stages.video.y' most letters agree.
    return part >= NEAR or ('.' not in candidate and whole >= NEAR)

  found = list(filter(near, valid))
  return max(found, key=lambda x: sum(similarity(x)), default=None)


def hint(name: str, valid: Iterable[str], prefix: str = '') -> str:
  """Returns the end of a sentence about a name that is not valid.

  Args:
    name: as it was given.
    valid: names that there are.
    prefix: of each name in the sentence, such as '--config.'.

  Returns:
    ': did you mean X?'; ': there are A, B.' if none is near; '.' if there are
    too many to list, or none.
  """
  valid = list(valid)
  if (found := nearest(name, valid)) is not None:
    return f': did you mean {prefix}{found}?'
  if 0 < len(valid) <= FEW:
    return f': there {"are" if len(valid) > 1 else "is"} ' + (
      ', '.join(f'{prefix}{x}' for x in valid) + '.'
    )
  return '.'
