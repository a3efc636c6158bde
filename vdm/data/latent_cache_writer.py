"""Writes the latent cache, see `latent_cache`, given an encode function."""

from collections.abc import Callable, Iterator, Sequence
import hashlib
import json
import os
from typing import Any
import zlib

from absl import logging
from etils.array_types import BoolArray, FloatArray, ui8
import numpy as np

from vdm.common import files
from vdm.common import parallel
from vdm.common import progress
from vdm.common import sizes
from vdm.data import builders
from vdm.data import cache_folder
from vdm.data import clip_spec
from vdm.data import coding
from vdm.data import latent_cache

# uint8 [n h w 3] -> mean and log-variance [n h' w' c], as arrays or as what
# becomes arrays, so that a device may work ahead.
Encode = Callable[[ui8['n h w 3']], tuple[Any, Any]]


def make_plan(
  source: builders.ClipSource,
  *,
  autoencoder: str,
  shape: Sequence[int],
  size: sizes.Size,
  mirrored: bool,
) -> dict[str, Any]:
  """Returns all that a cache's content depends on.

  Args:
    source: a clip source; the cache is of its frames.
    autoencoder: fingerprint of the autoencoder.
    shape: of a frame's latents, (h, w, c).
    size: of the frames that are encoded, px.
    mirrored: whether mirrored frames are encoded, too.

  Raises:
    ValueError: the data set stores smaller frames.
  """
  stated = sizes.keys(size)
  clip_spec.ClipSpec(frames=1, stride=1, **stated).check(source)
  names = ('name', 'version', 'frame_rate', 'fingerprint')
  return {
    'autoencoder': autoencoder,
    'dataset': {name: source.info[name] for name in names}
    | sizes.keys(sizes.of(source.info)),
    'split': f'{source.split} {source.split_list}',
    'shape': list(shape),
    **stated,
    'mirrored': mirrored,
    'dtype': np.dtype(latent_cache.DTYPE).name,
  }


def write(
  directory: str,
  plan: dict[str, Any],
  source: builders.ClipSource,
  encode: Encode,
  *,
  batch: int,
  process_index: int = 0,
  process_count: int = 1,
  wait: Callable[[], None] = lambda: None,
) -> None:
  """Encodes this process's share of a data set; resumes an unfinished cache.

  Args:
    directory: of the cache.
    plan: what `make_plan` returned.
    source: the clip source of the plan.
    encode: is always called with `batch` frames.
    batch: frames encoded at once.
    process_index: this process, which writes every `process_count`-th shard.
    process_count: processes.
    wait: returns when all processes have called it.

  Raises:
    CacheError: the folder holds something else, or the latents do not fit.
  """
  os.makedirs(directory, exist_ok=True)
  if process_index == 0:
    cache_folder.claim(
      directory, plan, 'a latent cache', 'config.data.latents', _difference
    )
  wait()
  shards = latent_cache.cut_shards(source.index['n'], plan)
  own = [
    number
    for number in range(process_index, len(shards), process_count)
    if not os.path.exists(cache_folder.shard_path(directory, number))
  ]
  logging.info(
    'Latents in %s: %d of %d shards are left to this process.',
    directory,
    len(own),
    len(shards),
  )
  entries = [int(entry) for number in own for entry in shards[number]]
  decoded = parallel.ordered_map(
    lambda entry: _decode(source, entry, sizes.of(plan)), entries
  )
  tracked = progress.track(decoded, len(entries), 'encoding latents', 'record')
  for number in own:
    records = [next(tracked) for _ in shards[number]]
    _write_shard(directory, number, records, plan, encode, batch)
  for _ in tracked:  # Lets the last line of the progress be written.
    pass
  wait()
  if process_index == 0:
    _finish(directory, plan, source, len(shards))
  wait()


def _difference(found: dict[str, Any], plan: dict[str, Any]) -> str:
  """Says what a folder holds that has another plan; '' for the same one."""
  if difference := latent_cache.find_difference(found, plan):
    return difference
  for name, value in plan.items():
    if found.get(name) != value:
      return f'{name} {found.get(name)}, not {value}'
  return ''


def _decode(
  source: builders.ClipSource, entry: int, size: sizes.Size
) -> tuple[ui8['n h w 3'], BoolArray[' n']]:
  """Returns a record's frames, and which of them can be read."""
  n, stored = int(source.index['n'][entry]), sizes.of(source.info)
  frames = np.zeros((n, *size, 3), np.uint8)
  good = np.zeros(n, bool)
  try:
    encoded = source.frames(int(source.index['row'][entry]), 0, n)
  except Exception as error:
    _warn(source, entry, error)
    return frames, good
  for i, data in enumerate(encoded):
    try:
      image = coding.decode_frame(data, stored)
    except Exception as error:
      _warn(source, entry, error)
      continue
    frames[i], good[i] = coding.shrink(image, size), True
  return frames, good


def _warn(source: builders.ClipSource, entry: int, error: Exception) -> None:
  logging.warning(
    'Record %s cannot be read (%s): it has no latents.',
    source.index['id'][entry],
    error,
  )


def _write_shard(directory, number, records, plan, encode, batch) -> None:
  frames = np.concatenate([frames for frames, _ in records])
  good = np.concatenate([good for _, good in records])
  copies = [frames, frames[:, :, ::-1]] if plan['mirrored'] else [frames]
  latents = np.empty(
    (len(copies), 2, len(frames), *plan['shape']), np.dtype(latent_cache.DTYPE)
  )
  for copy, images in enumerate(copies):
    for start, moments in _encoded(images, encode, batch):
      for moment, values in enumerate(moments):
        latents[copy, moment, start : start + len(values)] = _narrow(values)
  sums = np.array(
    [
      [[zlib.crc32(frame) for frame in moment] for moment in copy]
      for copy in latents
    ],
    np.int64,
  )
  sums[:, :, ~good] = latent_cache.UNREADABLE
  path = cache_folder.shard_path(directory, number)
  # The sums first: the file of the latents says that both are there.
  cache_folder.write_array(cache_folder.sums_path(path), sums)
  cache_folder.write_array(path, latents)


def _encoded(images, encode, batch) -> Iterator[tuple[int, list[np.ndarray]]]:
  """Yields (first frame, moments) of batches, each one call behind.

  The last batch is filled with copies of the last frame.
  """
  waiting = None
  for start in range(0, len(images), batch):
    rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
    now = start, encode(images[rows])
    if waiting:
      yield _fetched(*waiting, len(images))
    waiting = now
  yield _fetched(*waiting, len(images))


def _fetched(start, moments, total):
  return start, [np.asarray(m, np.float32)[: total - start] for m in moments]


def _narrow(values: FloatArray['n h w c']) -> FloatArray['n h w c']:
  if not np.abs(values).max() <= np.finfo(latent_cache.DTYPE).max:
    raise cache_folder.CacheError(
      f'Latents up to {np.abs(values).max()} do not fit '
      f'{latent_cache.DTYPE.__name__}: the autoencoder is broken or of another '
      'scale.'
    )
  return values.astype(latent_cache.DTYPE)


def _finish(directory: str, plan: dict, source, num_shards: int) -> None:
  digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
  frames = unreadable = 0
  for number in range(num_shards):
    sums = np.load(
      cache_folder.sums_path(cache_folder.shard_path(directory, number)),
      allow_pickle=False,
    )
    digest.update(sums.tobytes())
    frames += sums.shape[-1]
    unreadable += int((sums[0, 0] == latent_cache.UNREADABLE).sum())
  files.write_npz(
    os.path.join(directory, latent_cache.INDEX),
    {
      'id': np.asarray(source.index['id']),
      'n': np.asarray(source.index['n'], np.int64),
    },
  )
  content = {
    **plan,
    'frames': frames,
    'unreadable': unreadable,
    'shards': num_shards,
    'fingerprint': digest.hexdigest(),
  }
  # Without `write_json`'s last newline: the bytes of finished caches stay.
  files.write_text(
    os.path.join(directory, latent_cache.DONE), json.dumps(content, indent=2)
  )
