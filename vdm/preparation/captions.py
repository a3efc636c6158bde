"""Captions of videos from a manifest, and rules that reject poor ones.

A manifest is a table with a row per video, as a .csv, .jsonl or .parquet file;
`config.data.captions` names its columns (WebVid's by default). The rules need
the table alone, so they apply before any video is decoded.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import csv
import dataclasses
import json
import os
import re
from typing import Any
import unicodedata
import urllib.parse

_COLUMNS = ('folder', 'file', 'caption', 'source', 'duration')
_MIN_LETTERS = 0.6  # Share of the characters that are no spaces.
_MAX_WORD = 30  # Letters; longer ones are hashes and file names.
_ISO_DURATION = re.compile(
  r'P(?:\d+D)?T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>[\d.]+)S)?',
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Row:
  """What a manifest says about one video.

  Attributes:
    file: path in the source, without its suffix.
    caption: with single spaces.
    source: who published it; the host where the column holds addresses.
    seconds: duration; None if unknown.
  """

  file: str
  caption: str
  source: str = ''
  seconds: float | None = None


def read(path: str, columns: Mapping[str, str]) -> list[Row]:
  """Reads a manifest.

  Args:
    path: of a .csv, .jsonl or .parquet file.
    columns: the names of the columns, as in `config.data.captions`: `file` and
      `caption`, and, where not '', `folder`, `source` and `duration` (seconds,
      hh:mm:ss or ISO 8601).

  Raises:
    ValueError: the file has no such columns, is of another kind, or damaged.
  """
  rows = []
  for number, record in enumerate(_records(path)):
    for use in _COLUMNS:
      column = columns[use]
      if column and column not in record:
        raise ValueError(
          f'{path}: row {number} has no column {column!r} (data.captions.'
          f'{use}); it has {", ".join(map(str, record))}.'
        )
    parts = [record[columns[use]] for use in ('folder', 'file') if columns[use]]
    rows.append(
      Row(
        file=stem('/'.join(str(part).strip('/') for part in parts)),
        caption=' '.join(str(record[columns['caption']] or '').split()),
        source=_host(record[columns['source']]) if columns['source'] else '',
        seconds=(
          _seconds(record[columns['duration']]) if columns['duration'] else None
        ),
      )
    )
  return rows


def stem(name: str) -> str:
  """Returns a path without the suffix of its file."""
  head, base = os.path.split(name)
  root, suffix = os.path.splitext(base)
  # '1066647457.5 mm' has no suffix: one is short and without spaces.
  keep = not re.fullmatch(r'\.[A-Za-z0-9]{2,5}', suffix)
  return '/'.join(filter(None, (head, base if keep else root)))


def screen(
  rows: Sequence[Row], options: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
  """Returns (reason, sentence) of the files that the rules reject.

  Args:
    rows: of a manifest.
    options: `config.data.captions`.
  """
  boilerplate = [re.compile(p, re.IGNORECASE) for p in options['boilerplate']]
  counts = collections.Counter(_key(row.caption) for row in rows)
  refused = {}
  for row in rows:
    violation = next(_violations(row, counts, boilerplate, options), None)
    if violation:
      refused[row.file] = violation
  return refused


def _violations(
  row: Row,
  counts: Mapping[str, int],
  boilerplate: Sequence[re.Pattern],
  options: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
  words = row.caption.split()
  if len(words) < options['min_words']:
    yield 'caption_short', f'{len(words)} words: {row.caption!r}'
  if options['max_words'] and len(words) > options['max_words']:
    yield 'caption_long', f'{len(words)} words'
  if not _is_language(row.caption):
    yield 'caption_no_language', repr(row.caption[:80])
  rest = row.caption
  for pattern in boilerplate:
    rest = pattern.sub(' ', rest)
  if rest != row.caption and len(rest.split()) < options['min_words']:
    yield 'caption_boilerplate', repr(row.caption[:80])
  number = counts[_key(row.caption)]
  if options['max_repeats'] and number > options['max_repeats']:
    yield 'caption_repeated', f'{number} videos have {row.caption[:80]!r}'
  if row.seconds is not None:
    if row.seconds < options['min_seconds']:
      yield 'clip_short', f'{row.seconds:g} s'
    if options['max_seconds'] and row.seconds > options['max_seconds']:
      yield 'clip_long', f'{row.seconds:g} s'


def _is_language(caption: str) -> bool:
  """Returns whether a caption looks like words, in any script."""
  characters = [c for c in caption if not c.isspace()]
  # Marks belong to letters in many scripts.
  letters = [c for c in characters if unicodedata.category(c)[0] in 'LM']
  if len(letters) < _MIN_LETTERS * len(characters) or not letters:
    return False
  if len({c.lower() for c in letters}) < 3 or re.search(r'(\w)\1{4}', caption):
    return False
  words = [word.strip('.,;:!?"\'()') for word in caption.split()]
  # Words are long in scripts without spaces, but not in Latin.
  latin = [w for w in words if w.isascii()]
  if any(len(word) > _MAX_WORD for word in latin):
    return False
  spelt = [w for w in latin if w.isalpha() and len(w) > 3]
  no_vowels = [w for w in spelt if not re.search(r'[aeiouy]', w.lower())]
  return len(no_vowels) <= len(spelt) / 2


def _key(caption: str) -> str:
  """Returns a caption without case and punctuation, to count repetitions."""
  return re.sub(r'\W+', ' ', caption.casefold()).strip()


def _records(path: str) -> Iterator[Mapping[str, Any]]:
  suffix = os.path.splitext(path)[1].lower()
  if suffix == '.csv':
    with open(path, newline='', encoding='utf-8-sig', errors='replace') as file:
      reader = csv.DictReader(file)
      try:
        yield from reader
      except csv.Error as error:
        raise ValueError(f'{path}, line {reader.line_num}: {error}') from error
  elif suffix in ('.jsonl', '.ndjson'):
    with open(path, encoding='utf-8', errors='replace') as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          try:
            yield dict(json.loads(line))
          except (ValueError, TypeError) as error:
            raise ValueError(f'{path}, line {number}: {error}') from error
  elif suffix == '.parquet':
    from pyarrow import parquet  # Large, and not needed for the others.

    with parquet.ParquetFile(path) as file:
      for batch in file.iter_batches():
        yield from batch.to_pylist()
  else:
    raise ValueError(f'{path} is neither .csv, .jsonl nor .parquet.')


def _seconds(value: Any) -> float | None:
  text = str(value or '').strip()
  match = _ISO_DURATION.fullmatch(text)
  if match and any(match.groups()):
    parts = [float(part or 0) for part in match.group('h', 'm', 's')]
  else:
    try:
      parts = [float(part) for part in text.split(':')]
    except ValueError:
      return None
  total = 0.0
  for part in parts:
    total = 60 * total + part
  return total


def _host(value: Any) -> str:
  text = str(value or '')
  return urllib.parse.urlsplit(text).netloc or text
