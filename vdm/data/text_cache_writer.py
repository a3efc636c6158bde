"""Writes the text cache, see `text_cache`, given an encoder."""

from collections.abc import Callable, Iterable, Sequence
import hashlib
import json
import os
from typing import Any
import zlib

from etils.array_types import FloatArray
import numpy as np

from vdm.common import files
from vdm.common import progress
from vdm.data import text_cache

# Captions -> the tokens of each, float [tokens, d].
Encode = Callable[[Sequence[str]], list[FloatArray['n d']]]


def write(
  directory: str,
  encoder: dict[str, Any],
  captions: Iterable[str],
  encode: Encode,
  count: Callable[[Sequence[str]], list[int]],
  *,
  batch: int = 64,
) -> dict[str, Any]:
  """Encodes captions; resumes an unfinished cache.

  Args:
    directory: of the cache.
    encoder: 'name', 'revision', 'sha256', 'length' and 'features'; 'padded' if
      all captions have that length.
    captions: each is encoded once; '' is if they are padded, and else is not.
    encode: the encoder.
    count: how many tokens it makes of captions.
    batch: captions encoded at once.

  Returns:
    What the cache holds, see `text_cache.Texts.plan`.

  Raises:
    CacheError: the folder holds something else.
  """
  told = {x for x in captions if x} | ({''} if encoder.get('padded') else set())
  by_key = {text_cache.key(x): x for x in told}
  ordered = [by_key[key] for key in sorted(by_key)]
  keys = text_cache.keys(ordered)
  content = hashlib.sha256(keys.tobytes()).hexdigest()
  shard = text_cache.SHARD
  plan = {**encoder, 'captions': len(ordered), 'shard': shard}
  plan['content'] = content
  os.makedirs(directory, exist_ok=True)
  _claim(directory, plan)
  _write_array(os.path.join(directory, text_cache.KEYS), keys)
  starts, lengths = range(0, len(ordered), shard), []
  for start in starts:
    lengths += count(ordered[start : start + shard])
  offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
  _write_array(os.path.join(directory, text_cache.OFFSETS), offsets)
  digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
  for start in progress.track(starts, len(starts), 'encoding captions', 'part'):
    path = text_cache.shard_path(directory, start // shard)
    if not os.path.exists(path):
      part = slice(start, start + shard)
      _write_shard(path, ordered[part], lengths[part], encode, batch)
    sums = np.load(text_cache.sums_path(path), allow_pickle=False)
    digest.update(sums.tobytes())
  plan['fingerprint'] = digest.hexdigest()
  files.write_json(os.path.join(directory, text_cache.DONE), plan)
  return plan


def _claim(directory: str, plan: dict[str, Any]) -> None:
  """Writes the plan, or checks that the cache there has the same."""
  path = os.path.join(directory, text_cache.PLAN)
  if not os.path.exists(path):
    if os.listdir(directory):
      raise text_cache.CacheError(
        f'{directory} holds other files than a text cache: give another folder '
        'as config.data.texts.'
      )
    files.write_json(path, plan)
    return
  with open(path) as file:
    found = json.load(file)
  for name, value in plan.items():
    if found.get(name) != value:
      raise text_cache.CacheError(
        f'{directory} holds texts with another {name} ({found.get(name)}, not '
        f'{value}): remove it, or give another folder as config.data.texts.'
      )


def _write_shard(path, captions, lengths, encode, batch) -> None:
  parts = []
  for start in range(0, len(captions), batch):
    parts += map(_as_stored, encode(captions[start : start + batch]))
  assert [len(part) for part in parts] == list(lengths)
  tokens = np.concatenate(parts)
  pieces = np.split(tokens, np.cumsum(lengths)[:-1])
  sums = [zlib.crc32(np.ascontiguousarray(piece)) for piece in pieces]
  # The sums first: the file of the tokens says that both are there.
  _write_array(text_cache.sums_path(path), np.array(sums, np.int64))
  _write_array(path, tokens)


def _as_stored(tokens: FloatArray['n d']) -> FloatArray['n d']:
  if not np.abs(tokens).max() <= np.finfo(text_cache.DTYPE).max:
    raise text_cache.CacheError(
      f'Tokens up to {np.abs(tokens).max()} do not fit '
      f'{text_cache.DTYPE.__name__}: the encoder is broken.'
    )
  return tokens.astype(text_cache.DTYPE)


def _write_array(path: str, array: np.ndarray) -> None:
  with files.replaced(path) as file:
    np.save(file, array, allow_pickle=False)
