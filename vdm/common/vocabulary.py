"""The words of captions, and their numbers in a network that learns them.

A word is a run of letters and digits, in lower case; marks between words mean
nothing. Number 0 is that of no word, 1 that of every word which is not in the
vocabulary, and the others follow by how often they occur.

Worker processes import this module: the standard library alone.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import functools
import re
from typing import Any
import unicodedata

NONE, UNKNOWN = 0, 1
FIRST = 2  # Number of the first word.
MOST_LETTERS = 64  # Of a word; what follows is cut off.
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def split(caption: str) -> list[str]:
  """Returns the words of a caption, in order."""
  text = unicodedata.normalize('NFKC', caption).casefold()
  return [
    word.replace('\u2019', "'")[:MOST_LETTERS] for word in _WORD.findall(text)
  ]


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


def unknown(caption: str, words: Iterable[str]) -> list[str]:
  """Returns the words of a caption that a vocabulary lacks, each once."""
  known = set(words)
  return [word for word in dict.fromkeys(split(caption)) if word not in known]
