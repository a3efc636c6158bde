"""Which labels have a direction that mirroring the frames would reverse.

A clip of the class `turn_left` shows a turn to the right once it is mirrored,
so `data.flip` would train on wrong labels. All labels of the synthetic scenes
are directions; of other data sets the names decide.
"""

from collections.abc import Sequence
import re

# Words, not parts of words: 'copyright' and 'brighten' have no side.
_SIDES = re.compile(
  r'(left|right)(wards?|most|hand|handed|side|sided|turn)?s?'
  r'|(anti|counter)?clockwise'
)
_WORDS = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')


def labels(dataset: str, names: Sequence[str]) -> list[str]:
  """Returns the labels that do not hold for mirrored frames.

  Args:
    dataset: name of the data set.
    names: of its labels; 'TurnLeft', 'turn_left' and 'left-turn' are words.
  """
  if dataset == 'synthetic_scenes':
    return list(names)
  return [
    name
    for name in names
    if any(_SIDES.fullmatch(word.lower()) for word in _WORDS.findall(name))
  ]
