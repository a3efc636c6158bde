"""Captions of synthetic scenes, rendered from their truth, and read again.

A caption says of one object its size, colour, shape and direction, and of a
scene how many there are and what the ground is, in one of several wordings;
some leave out the size and the ground. `parse` finds in any of them what was
said, so that videos can be compared with their prompts.

A tenth of the triples of colour, shape and direction is held out: no training
scene shows one, while every colour, shape and direction is seen with others.

Worker processes import this module: NumPy and the standard library alone.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import itertools
from typing import Any, NamedTuple

import numpy as np

from vdm.common import shapes
from vdm.common import vocabulary

COLOURS = ('red', 'yellow', 'green', 'cyan', 'blue', 'magenta')
SIZES = ('small', 'medium', 'large')
# Bounds of the sizes, radius of the disc of equal area at 64 px.
SIZE_BOUNDS = (7.33, 8.67)
GROUNDS = {'plain': 'black', 'textured': 'grey'}
NUMBERS = ('one', 'two', 'three')
# Of each class of motion: see `scenes.LABEL_NAMES`. The first wording of a
# direction is that of prompts.
DIRECTIONS = (
  ('to the right', 'rightwards'),
  ('down and to the right', 'to the lower right'),
  ('down', 'downwards'),
  ('down and to the left', 'to the lower left'),
  ('to the left', 'leftwards'),
  ('up and to the left', 'to the upper left'),
  ('up', 'upwards'),
  ('up and to the right', 'to the upper right'),
)
HELD_OUT = 0.1  # Share of the triples.

_SHAPES = {
  'disc': ('disc', 'circle'),
  'square': ('square',),
  'triangle': ('triangle',),
}
_VERBS = ('moves', 'goes', 'drifts')
_ACROSS = {
  'up': -1,
  'upwards': -1,
  'upper': -1,
  'down': 1,
  'downwards': 1,
  'lower': 1,
}
_ALONG = {'left': -1, 'leftwards': -1, 'right': 1, 'rightwards': 1}


class Attributes(NamedTuple):
  """What a caption says of one object; None where it says nothing.

  Attributes:
    colour: index into `COLOURS`.
    shape: index into `shapes.NAMES`.
    direction: class of the motion.
    size: index into `SIZES`.
  """

  colour: int | None = None
  shape: int | None = None
  direction: int | None = None
  size: int | None = None

  @property
  def triple(self) -> tuple[int | None, ...]:
    """Colour, shape and direction."""
    return self[:3]


@functools.cache
def held_out() -> frozenset[tuple[int, int, int]]:
  """Returns the triples that no training scene shows, the same everywhere.

  They are those with the smallest hashes, but for those that would leave a
  colour, shape or direction with less than half of its triples.
  """
  triples = list(
    itertools.product(
      range(len(COLOURS)), range(len(shapes.NAMES)), range(len(DIRECTIONS))
    )
  )
  wanted, chosen = round(HELD_OUT * len(triples)), []
  for triple in sorted(triples, key=_hash):
    if len(chosen) == wanted:
      break
    if all(
      sum(x[i] == value for x in [*chosen, triple])
      <= sum(x[i] == value for x in triples) / 2
      for i, value in enumerate(triple)
    ):
      chosen.append(triple)
  return frozenset(chosen)


def attributes(truth: Mapping[str, Any], side: int) -> list[Attributes]:
  """Returns what is true of the objects of a scene, the nearest first.

  Args:
    truth: of `scenes.render`.
    side: the shorter one of the scene's frames, px, by which objects scale.
  """
  found = []
  for k, shape in enumerate(truth['shape'].tolist()):
    velocity = truth['velocity'][:, k]
    direction = None
    if (velocity == velocity[0]).all() and velocity[0].any():
      eighths = np.arctan2(velocity[0, 1], velocity[0, 0]) / (np.pi / 4)
      direction = int(np.rint(eighths)) % 8
    size = float(truth['size'][0, k]) * 64 / side
    found.append(
      Attributes(
        colour=colour_of(hue(truth['colour'][0, k])),
        shape=int(shape),
        direction=direction,
        size=int(np.searchsorted(SIZE_BOUNDS, size)),
      )
    )
  return found


def hue(colour: Sequence[int]) -> float:
  """Returns the hue of a saturated colour, in turns."""
  red, green, blue = (float(x) for x in colour)
  low, high = min(red, green, blue), max(red, green, blue)
  if high == red:
    sixth = (green - blue) / (high - low)
  elif high == green:
    sixth = 2 + (blue - red) / (high - low)
  else:
    sixth = 4 + (red - green) / (high - low)
  return sixth / 6 % 1


def colour_of(turns: float) -> int:
  """Returns the colour whose hue is nearest."""
  return round(turns * len(COLOURS)) % len(COLOURS)


def is_held_out(objects: Sequence[Attributes]) -> bool:
  """Returns whether a scene shows a triple that is held out."""
  return any(x.triple in held_out() for x in objects)


def render(
  objects: Sequence[Attributes], ground: str, random: np.random.Generator
) -> str:
  """Returns a caption of a scene, in one of the wordings.

  Args:
    objects: of the scene.
    ground: a key of `GROUNDS`.
    random: draws the wording.
  """
  if len(objects) > 1:
    clauses = [_clause(x, random) for x in objects]
    listed = ', '.join(clauses[:-1]) + f' and {clauses[-1]}'
    if random.random() < 0.5:
      number = NUMBERS[len(objects) - 1]
      listed = f'{number} objects: {listed}'
  else:
    listed = _sentence(objects[0], random)
  return listed + _where(ground, random)


def _clause(x: Attributes, random) -> str:
  noun = _noun(x, random)
  if x.direction is None:
    return noun
  return f'{noun} that {_choose(_VERBS, random)} {_way(x, random)}'


def _sentence(x: Attributes, random) -> str:
  noun = _noun(x, random)
  if x.direction is None:
    return f'{noun} {_choose(_VERBS, random)}'
  verb, way = _choose(_VERBS, random), _way(x, random)
  return _choose(
    (
      f'{noun} {verb} {way}',
      f'{noun} {verb} {way}',
      f'{noun} that {verb} {way}',
      f'one object, {noun}, {verb} {way}',
      f'{way} {verb} {noun}',
    ),
    random,
  )


def _noun(x: Attributes, random) -> str:
  shape = _choose(_SHAPES[shapes.NAMES[x.shape]], random)
  words = [COLOURS[x.colour], shape]
  if random.random() < 0.6:
    words.insert(0, SIZES[x.size])
  return f'a {" ".join(words)}'


def _way(x: Attributes, random) -> str:
  first, *others = DIRECTIONS[x.direction]
  return first if random.random() < 0.6 else _choose(others, random)


def _where(ground: str, random) -> str:
  if random.random() < 0.6:
    return ''
  return f' on {_choose(("a", "the"), random)} {GROUNDS[ground]} ground'


def _choose(options: Sequence[str], random) -> str:
  return options[int(random.random() * len(options))]


def prompt(x: Attributes) -> str:
  """Returns a caption of one object in the plainest wording."""
  size = f'{SIZES[x.size]} ' if x.size is not None else ''
  return (
    f'a {size}{COLOURS[x.colour]} {shapes.NAMES[x.shape]} moves '
    f'{DIRECTIONS[x.direction][0]}'
  )


def prompts(num: int, seed: int = 0) -> tuple[str, ...]:
  """Returns prompts of one object: of seen and held-out triples, in turn.

  Args:
    num: number of prompts.
    seed: of their order and of the seen triples among them.
  """
  random = np.random.default_rng(seed)
  triples = itertools.product(
    range(len(COLOURS)), range(len(shapes.NAMES)), range(len(DIRECTIONS))
  )
  unseen = sorted(held_out())
  seen = [x for x in triples if x not in held_out()]
  # Shuffled by uniform numbers, which are the same in every NumPy.
  groups = [
    [group[i] for i in np.argsort(random.random(len(group)))]
    for group in (seen, unseen)
  ]
  return tuple(
    prompt(Attributes(*groups[i % 2][i // 2 % len(groups[i % 2])]))
    for i in range(num)
  )


def parse(caption: str) -> Attributes | None:
  """Returns what a caption of one object says; None if it is of several."""
  words = vocabulary.split(caption)
  nouns = {name: i for i, x in enumerate(_SHAPES.values()) for name in x}
  if sum(word in nouns for word in words) != 1:
    return None
  across = {_ACROSS[word] for word in words if word in _ACROSS}
  along = {_ALONG[word] for word in words if word in _ALONG}
  direction = None
  if len(across) <= 1 and len(along) <= 1 and (across or along):
    x, y = sum(along), sum(across)
    direction = int(np.rint(np.arctan2(y, x) / (np.pi / 4))) % 8
  return Attributes(
    colour=_only(words, {x: i for i, x in enumerate(COLOURS)}),
    shape=_only(words, nouns),
    direction=direction,
    size=_only(words, {x: i for i, x in enumerate(SIZES)}),
  )


def _only(words: Sequence[str], known: Mapping[str, int]) -> int | None:
  """Returns the value of the only known word; None unless there is one."""
  found = {known[word] for word in words if word in known}
  return found.pop() if len(found) == 1 else None


def _hash(triple: tuple[int, int, int]) -> str:
  return hashlib.sha256(repr(triple).encode()).hexdigest()
