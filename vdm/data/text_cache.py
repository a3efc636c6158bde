"""The text cache: every caption of a data set, encoded once.

A cache is a folder, made by `text_cache_writer` and read by `Texts`. It holds
the tokens that a pretrained text encoder makes of each caption, in float16, and
says which encoder that was. A caption is found by a hash of its text, so that
the order and the splits of the data set do not matter. Where captions are
padded, the empty one is encoded as well: it stands for no caption.

  plan.json       which encoder, of what; written first
  keys.npy        uint8 [n, 16]: hashes of the captions, rising
  offsets.npy     int64 [n + 1]: where the tokens of each begin
  00000.npy       float16 [tokens, d] of some captions
  00000.sums.npy  int64 [captions]: CRC-32 of the tokens of each
  texts.json      the plan and what came out; written last

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Iterable, Mapping
import hashlib
import os
from typing import Any
import zlib

from etils.array_types import FloatArray, IntArray, ui8
import numpy as np

from vdm.data import cache_folder
from vdm.data import open_shards

KEYS, OFFSETS, DONE = 'keys.npy', 'offsets.npy', 'texts.json'
SHARD = 4096  # Captions of a shard of a new cache.
KEY_BYTES = 16
OPEN_SHARDS = 64  # That a process keeps open.
DTYPE = np.float16
# What must be alike in a cache and in what reads it.
ENCODER = ('name', 'revision', 'length', 'features', 'padded')


def key(caption: str) -> bytes:
  """Returns by what a caption is found."""
  return hashlib.sha256(caption.encode()).digest()[:KEY_BYTES]


def keys(captions: Iterable[str]) -> ui8['n 16']:
  """Returns the keys of different captions, rising."""
  found = sorted(map(key, set(captions)))
  joined = np.frombuffer(b''.join(found), np.uint8)
  return joined.reshape(-1, KEY_BYTES)


class Texts:
  """Reads captions as encoded tokens; see the module's docstring.

  Cheap to pickle: another process opens the same folder anew. Safe to use from
  several threads.

  Attributes:
    directory: of the cache.
    plan: 'name', 'revision' and 'sha256' of the encoder, 'length' (tokens of a
      caption, at most), 'features' (channels of a token), 'padded' (all have
      that length), number of 'captions' and of those of a 'shard', and
      'fingerprint'.
  """

  def __init__(self, directory: str):
    """Opens a cache.

    Raises:
      CacheError: it is missing or unfinished.
    """
    self.directory = directory
    self.plan = read_plan(directory)
    found, self._offsets = (
      np.load(os.path.join(directory, x), mmap_mode='r', allow_pickle=False)
      for x in (KEYS, OFFSETS)
    )
    self._keys = np.asarray(found).view(f'S{KEY_BYTES}').reshape(-1)
    self._open = open_shards.OpenShards(self._arrays, OPEN_SHARDS)

  def __reduce__(self):
    return Texts, (self.directory,)

  def read(self, caption: str) -> dict[str, np.ndarray]:
    """Returns {'text': float32 [length, d], 'text_mask': bool [length]}.

    Raises:
      CacheError: the caption is none of the data set's.
      ValueError: what is stored is corrupt.
    """
    length, features = self.plan['length'], self.plan['features']
    text = np.zeros((length, features), np.float32)
    mask = np.zeros(length, bool)
    if caption:
      tokens = self._tokens(self._row(caption))
      text[: len(tokens)], mask[: len(tokens)] = tokens, True
    return {'text': text, 'text_mask': mask}

  def null(self) -> FloatArray['n d']:
    """Returns the tokens of the empty prompt, of a cache that is padded."""
    return self._tokens(self._row('')).astype(np.float32)

  def check(self, caption: str) -> None:
    """Checks that a prompt has been encoded.

    Raises:
      CacheError: it has not.
    """
    self._row(caption)

  def lacking(self, captions: Iterable[str]) -> list[str]:
    """Returns those of some captions that are not in the cache."""
    return [x for x in set(captions) if x and self._find(x) is None]

  def _find(self, caption: str) -> int | None:
    # NumPy's strings of bytes end at the last byte that is not 0.
    wanted = np.frombuffer(key(caption), f'S{KEY_BYTES}')[0]
    row = int(np.searchsorted(self._keys, wanted))
    found = row < len(self._keys) and self._keys[row] == wanted
    return row if found else None

  def _row(self, caption: str) -> int:
    if (row := self._find(caption)) is None:
      raise cache_folder.CacheError(
        f'The text cache {self.directory} lacks the caption {caption[:80]!r}: '
        'run python -m vdm.prepare captions with this --config again.'
      )
    return row

  def _tokens(self, row: int) -> np.ndarray:
    shard = self.plan['shard']
    number = row // shard
    tokens, sums = self._open.get(number)
    low, high = self._offsets[row : row + 2] - self._offsets[number * shard]
    found = np.ascontiguousarray(tokens[low:high])
    if zlib.crc32(found) != sums[row % shard]:
      raise ValueError(f'{self.directory}: the tokens are not what was written')
    return found

  def _arrays(self, number: int) -> tuple[np.ndarray, IntArray[' n']]:
    """Returns a shard's memory-mapped tokens, and their checksums."""
    path = cache_folder.shard_path(self.directory, number)
    return (
      np.load(path, mmap_mode='r', allow_pickle=False),
      np.load(cache_folder.sums_path(path), allow_pickle=False),
    )


def read_plan(directory: str) -> dict[str, Any]:
  """Returns what a finished cache holds.

  Raises:
    CacheError: there is none.
  """
  found = cache_folder.read_finished(
    directory,
    DONE,
    'text cache in {}: run python -m vdm.prepare captions with the same '
    '--config',
  )
  return {'padded': False} | found  # Older ones do not say.


def open_cache(
  directory: str, text: Mapping[str, Any], sha256: str = ''
) -> Texts:
  """Opens the cache that a run reads captions from, or refuses it.

  Args:
    directory: of the cache.
    text: `config.model.text`.
    sha256: of the run's encoder; '' for a run that has none yet.

  Raises:
    CacheError: names the first thing that differs, and both values.
  """
  texts = Texts(directory)
  plan = texts.plan
  pairs = [(name, plan[name], text[name]) for name in ENCODER]
  if sha256:
    pairs.append(('sha256', plan['sha256'], sha256))
  for name, found, wanted in pairs:
    if found != wanted:
      raise cache_folder.CacheError(
        f'The text cache {directory} is of an encoder with {name} {found!r}, '
        f'not {wanted!r}: make another one with python -m vdm.prepare '
        'captions, or set config.model.text to what it is of.'
      )
  return texts
