"""What a key of the configuration may hold: a default and a constraint.

`schema` writes both as one value: `steps=positive(32)` is 32 by default and
always above 0. The type of the default is the type of the key. A constraint on
a tuple applies to each of its elements, except for `rising` and `interval`.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
import re
from typing import Any

from vdm.config import suggest

_TYPES = {
  bool: 'True or False',
  int: 'an integer',
  float: 'a number',
  str: 'a string',
}


@dataclasses.dataclass(frozen=True)
class Key:
  """A key's default and its constraint.

  Attributes:
    default: of the key's type.
    constraint: returns what is wrong with a value of that type, or ''.
    element: like which the elements of a tuple are that is empty by default.
  """

  default: Any
  constraint: Callable[[Any], str]
  element: Any = ''

  def problem(self, value: Any) -> str:
    """Returns what is wrong, such as '-1 is negative.', or ''."""
    return self.type_problem(value) or self.constraint(value)

  def type_problem(self, value: Any) -> str:
    """Returns what is wrong with the type of a value, or ''."""
    if not isinstance(self.default, tuple):
      return _type_problem(value, self.default)
    if not isinstance(value, tuple):
      return f"{value!r} is not a tuple, as in '(1,2)'."
    like = (*self.default, self.element)[0]
    return next(filter(None, (_type_problem(x, like) for x in value)), '')


def _type_problem(value: Any, like: Any) -> str:
  """Returns why a value is not of the type of another, or ''."""
  if isinstance(like, tuple):
    if not isinstance(value, tuple) or len(value) != len(like):
      return f'{value!r} is not a pair, as in {like!r}.'
    return next(filter(None, map(_type_problem, value, like)), '')
  kind = type(like)
  # An integer is a number, and True is not an integer.
  if type(value) not in ((int, float) if kind is float else (kind,)):
    return f'{value!r} is not {_TYPES[kind]}.'
  if kind is float and not math.isfinite(value):
    return f'{value} is not a finite number.'
  return ''


def plain(default: Any) -> Key:
  """Any value of the default's type, but no negative number."""
  return _each(
    default,
    lambda x: '' if isinstance(x, str) or x >= 0 else f'{x} is negative.',
  )


def signed(default: Any) -> Key:
  """Any finite number."""
  return Key(default, lambda value: '')


def positive(default: Any) -> Key:
  """Above 0."""
  return _each(default, lambda x: '' if x > 0 else f'{x} is not positive.')


def at_least(least: float, default: Any) -> Key:
  """`least` or more."""
  return _each(
    default, lambda x: '' if x >= least else f'{x} is below {least}.'
  )


def below(limit: float, default: Any) -> Key:
  """Above 0 and below `limit`."""
  words = f'is not between 0 and {limit:.4g}.'
  return _each(default, lambda x: '' if 0 < x < limit else f'{x} {words}')


def share(default: float | tuple[float, ...]) -> Key:
  """From 0 to 1."""
  words = 'is not a share: from 0 to 1.'
  return _each(default, lambda x: '' if 0 <= x <= 1 else f'{x} {words}')


def even(default: int) -> Key:
  """Above 0 and divisible by 2."""
  words = 'is not positive and even.'
  return _each(default, lambda x: '' if x > 0 and not x % 2 else f'{x} {words}')


def one_of(default: Any, *others: Any) -> Key:
  """One of the values given, of which the first is the default."""
  return _each(default, _among((default, *others)))


def some_of(choices: Sequence[str]) -> Key:
  """Any of `choices`; by default none."""
  return _each((), _among(choices))


def regex(default: str | tuple[str, ...]) -> Key:
  """A regular expression."""

  def problem(text):
    try:
      re.compile(text)
    except re.error as error:
      return f'{text!r} is not a regular expression: {error}.'
    return ''

  return _each(default, problem)


def factors() -> Key:
  """Pairs of a regular expression and a number above 0; by default none."""
  pattern, factor = regex(''), positive(1.0)

  def problem(pair):
    return pattern.constraint(pair[0]) or factor.constraint(pair[1])

  key = _each((), problem)
  return dataclasses.replace(key, element=('^image/', 0.1))


def rising(default: tuple[float, ...]) -> Key:
  """Any numbers, each above the one before."""
  return Key(
    default,
    lambda x: '' if list(x) == sorted(set(x)) else f'{x} does not rise.',
  )


def interval(default: tuple[float, float], *, least: float = -math.inf) -> Key:
  """Two numbers (low, high), neither below `least`."""
  limit = '' if least == -math.inf else f', both at least {least:g}'
  words = f'is not (low, high){limit}.'
  return Key(
    default,
    lambda x: '' if len(x) == 2 and least <= x[0] <= x[1] else f'{x} {words}',
  )


def _each(default: Any, problem: Callable[[Any], str]) -> Key:
  """Returns a key with `problem` for its value or each element of its tuple."""

  def constraint(value):
    elements = value if isinstance(value, tuple) else (value,)
    return next(filter(None, map(problem, elements)), '')

  return Key(default, constraint)


def _among(choices: Sequence[Any]) -> Callable[[Any], str]:
  """Returns the constraint of `one_of` and `some_of`."""
  names = list(map(str, choices))

  def problem(value):
    if value in choices:
      return ''
    near = suggest.nearest(str(value), names)
    hint = f': did you mean {near}?' if near else '.'
    return f'{value!r} is not one of {", ".join(names)}{hint}'

  return problem
