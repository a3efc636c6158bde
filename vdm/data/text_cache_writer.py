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
from vdm.data import cache_folder
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
    count: how many tokens it makes of captions, asked of those that an
      unfinished cache has already.
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
  cache_folder.claim(
    directory, plan, 'a text cache', 'config.data.texts', _difference
  )
  cache_folder.write_array(os.path.join(directory, text_cache.KEYS), keys)
  starts, lengths = range(0, len(ordered), shard), []
  digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
  for start in progress.track(starts, len(starts), 'encoding captions', 'part'):
    path = cache_folder.shard_path(directory, start // shard)
    part = ordered[start : start + shard]
    if os.path.exists(path):
      lengths += count(part)  # Of tokens that are there already.
    else:
      lengths += _write_shard(path, part, encode, batch)
    sums = np.load(cache_folder.sums_path(path), allow_pickle=False)
    digest.update(sums.tobytes())
  offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
  cache_folder.write_array(os.path.join(directory, text_cache.OFFSETS), offsets)
  plan['fingerprint'] = digest.hexdigest()
  files.write_json(os.path.join(directory, text_cache.DONE), plan)
  return plan


def _difference(found: dict[str, Any], plan: dict[str, Any]) -> str:
  """Says what a folder holds that has another plan; '' for the same one."""
  for name, value in plan.items():
    if found.get(name) != value:
      return f'texts with another {name} ({found.get(name)}, not {value})'
  return ''


def _write_shard(path, captions, encode, batch) -> list[int]:
  """Writes the tokens of some captions and returns how many each has."""
  parts = []
  for start in range(0, len(captions), batch):
    parts += map(_as_stored, encode(captions[start : start + batch]))
  sums = [zlib.crc32(np.ascontiguousarray(part)) for part in parts]
  # The sums first: the file of the tokens says that both are there.
  cache_folder.write_array(
    cache_folder.sums_path(path), np.array(sums, np.int64)
  )
  cache_folder.write_array(path, np.concatenate(parts))
  return [len(part) for part in parts]


def _as_stored(tokens: FloatArray['n d']) -> FloatArray['n d']:
  if not np.abs(tokens).max() <= np.finfo(text_cache.DTYPE).max:
    raise cache_folder.CacheError(
      f'Tokens up to {np.abs(tokens).max()} do not fit '
      f'{text_cache.DTYPE.__name__}: the encoder is broken.'
    )
  return tokens.astype(text_cache.DTYPE)
