"""The words of captions, and their numbers in a network that learns them.

A word is a run of letters and digits, in lower case; marks between words mean
nothing. Number 0 is that of no word, 1 that of every word which is not in the
vocabulary, and the others follow by how often they occur.

Whatever turns a caption into what a network is told is a reader: `Words` of a
vocabulary, or one of a pretrained encoder, with the same method.

Worker processes import this module: neither jax nor TensorFlow here.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any, Protocol
import unicodedata

import numpy as np

from vdm.common import errors

NONE, UNKNOWN = 0, 1
FIRST = 2  # Number of the first word.
SHOWN = 40  # Known words that an error names.
MOST_LETTERS = 64  # Of a word; what follows is cut off.
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class Reader(Protocol):
  """Reads captions."""

  def read(self, caption: str) -> dict[str, np.ndarray]:
    """Returns the conditions of one clip; all null for ''."""
    ...


def split(caption: str) -> list[str]:
  """Returns the words of a caption, in order."""
  text = unicodedata.normalize('NFKC', caption).casefold()
  text = unicodedata.normalize('NFKC', text).replace('\u2019', "'")
  return [word[:MOST_LETTERS].rstrip("'") for word in _WORD.findall(text)]


def build(
  captions: Iterable[str], size: int, first: Sequence[str] = ()
) -> tuple[str, ...]:
  """Returns the words of captions, whatever their order.

  The most frequent word comes first; words that are equally frequent are in
  alphabetical order.

  Args:
    captions: of a data set.
    size: number of words, at most; rarer ones are left out.
    first: words that keep their places at the beginning.
  """
  counts = collections.Counter()
  # Data sets repeat captions, record by record of a shot.
  for caption, number in collections.Counter(captions).items():
    for word in split(caption):
      counts[word] += number
  for word in first:
    counts.pop(word, None)
  found = sorted(counts, key=lambda word: (-counts[word], word))
  return (*first, *found)[:size]


def problem(content: Any, size: int) -> str:
  """Returns what is wrong with words that were read from a file, '' if nothing.

  Args:
    content: JSON values.
    size: number of words that a network has room for.
  """
  if not isinstance(content, list) or len(content) > size:
    return f'is no list of at most {size} words'
  if len(set(map(str, content))) < len(content):
    return 'has a word twice'
  if any(type(word) is not str or split(word) != [word] for word in content):
    return 'has an entry that is no word'
  return ''


def numbers(caption: str, table: Mapping[str, int], length: int) -> list[int]:
  """Returns the numbers of a caption's words, filled with 0 to `length`.

  Args:
    caption: its further words are left out.
    table: see `table`.
    length: of the result.
  """
  found = [table.get(word, UNKNOWN) for word in split(caption)[:length]]
  return found + [NONE] * (length - len(found))


@functools.lru_cache(maxsize=4)
def table(words: tuple[str, ...]) -> dict[str, int]:
  """Returns the number of each word of a vocabulary."""
  return {word: FIRST + i for i, word in enumerate(words)}


@dataclasses.dataclass(frozen=True)
class Words:
  """Reads captions as numbers of words; cheap to pickle.

  Attributes:
    vocabulary: the words.
    length: words of a caption, at most.
  """

  vocabulary: tuple[str, ...]
  length: int

  def read(self, caption: str) -> dict[str, np.ndarray]:
    """Returns {'words': int32 [length]}; 0 for none."""
    found = numbers(caption, table(self.vocabulary), self.length)
    return {'words': np.array(found, np.int32)}

  def check(self, caption: str) -> None:
    """Checks that a prompt is one that the network can understand.

    Raises:
      UsageError: it has no words, too many, or unknown ones, which it names.
    """
    words, known = split(caption), table(self.vocabulary)
    unknown = [word for word in dict.fromkeys(words) if word not in known]
    if not words:
      raise errors.UsageError(f'The caption {caption!r} has no words.')
    if unknown:
      few = ', '.join(self.vocabulary[:SHOWN])
      more = f' and {len(known) - SHOWN} more' if len(known) > SHOWN else ''
      raise errors.UsageError(
        f'The caption {caption!r} has words that the run does not know '
        f'({", ".join(unknown)}): it knows {few}{more}.'
      )
    if len(words) > self.length:
      raise errors.UsageError(
        f'The caption {caption!r} has {len(words)} words, and the run reads '
        f'{self.length}: shorten it.'
      )


def read_all(
  reader: Reader | None, captions: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns the conditions of captions, a row each; {} without a reader."""
  if reader is None:
    return {}
  rows = [reader.read(str(caption)) for caption in captions]
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
