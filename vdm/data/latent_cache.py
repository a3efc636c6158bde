"""The latent cache: every frame of a data set, encoded once.

A cache is a folder, made by `latent_cache_writer` and read by `Cache`. It holds
the mean and the log-variance of each frame as they come from the autoencoder,
in float16 and before any normalisation, also of mirrored frames where training
mirrors. Frames are encoded one by one, so the windows of a stage, whatever
their length and stride, are the same as without a cache.

  plan.json       what is encoded, by what; written first
  00000.npy       float16 [copies, 2, frames, h, w, c] of some records' frames:
                  as they are and mirrored, mean and log-variance
  00000.sums.npy  int64 [copies, 2, frames]: CRC-32 of each, -1 for a frame
                  that could not be read
  index.npz       the records in the order of their frames, and their lengths
  latents.json    the plan and what came out; written last

Processes share the work by shards and need a common file system. A shard
appears by one rename, so a killed build resumes with the shard it was at.

Worker processes import this module: neither jax nor TensorFlow here.
"""

import math
import os
from typing import Any
import zlib

from etils.array_types import FloatArray, IntArray
import numpy as np

from vdm.common import sizes
from vdm.data import builders
from vdm.data import cache_folder
from vdm.data import clip_spec
from vdm.data import open_shards

INDEX, DONE = 'index.npz', 'latents.json'
SHARD_BYTES = 128 << 20  # Of a shard, about; records are not split.
OPEN_SHARDS = 128  # Files that a process keeps open: systems allow 1024.
DTYPE = np.float16
UNREADABLE = -1  # In place of a checksum.


class Cache:
  """The latents of a clip source's records; see the module's docstring.

  Cheap to pickle: another process opens the same folder anew. Safe to use from
  several threads.

  Attributes:
    directory: of the cache.
    source: the clip source.
    plan: what `latent_cache_writer.make_plan` returned, and 'frames',
      'unreadable' frames, number of 'shards' and 'fingerprint'.
  """

  def __init__(self, directory: str, source: builders.ClipSource):
    """Opens a cache.

    Raises:
      CacheError: it is missing, unfinished or without some of the records.
    """
    self.directory, self.source = directory, source
    self.plan = read_plan(directory)
    with np.load(os.path.join(directory, INDEX), allow_pickle=False) as file:
      ids, lengths = file['id'], file['n']
    # Where each of the source's records is: the order of records may differ.
    wanted = np.asarray(source.index['id'])
    order = np.argsort(ids, kind='stable')
    rank = np.searchsorted(ids[order], wanted).clip(max=len(ids) - 1)
    place = order[rank]
    missing = (ids[place] != wanted) | (lengths[place] != source.index['n'])
    if missing.any():
      raise cache_folder.CacheError(
        f'{directory} lacks {missing.sum()} of the {len(wanted)} records of '
        f'{source!r}, such as {wanted[missing][0]}: it was made of '
        f'{self.plan["split"]}; make another one.'
      )
    shards = cut_shards(lengths, self.plan)
    shard = np.repeat(np.arange(len(shards)), [len(s) for s in shards])
    offset = np.concatenate(
      [np.cumsum(lengths[s]) - lengths[s] for s in shards]
    )
    self._shard, self._offset = shard[place], offset[place]
    self._open = open_shards.OpenShards(self._arrays, OPEN_SHARDS // 2)

  def __reduce__(self):
    return Cache, (self.directory, self.source)

  def read(
    self,
    entry: int,
    positions: IntArray[' n'],
    *,
    mirrored: bool = False,
    posterior: bool = False,
  ) -> FloatArray['moments n h w c']:
    """Returns latents of frames of one record.

    Args:
      entry: the record's row of the source's index.
      positions: frames within it, rising.
      mirrored: of the mirrored frames.
      posterior: the log-variances, too.

    Returns:
      float16: the means and, if asked for, the log-variances.

    Raises:
      ValueError: a frame was unreadable when the cache was written, or what is
        stored is corrupt.
    """
    arrays, sums = self._open.get(int(self._shard[entry]))
    index = self._offset[entry] + positions
    moments = slice(0, 2 if posterior else 1)
    sums = sums[int(mirrored), moments][:, index]
    if (sums == UNREADABLE).any():
      raise ValueError('a frame could not be read when it was to be encoded')
    latents = arrays[int(mirrored), moments][:, index]
    for moment, wanted in zip(latents, sums):
      for frame, one in zip(moment, wanted):
        if zlib.crc32(np.ascontiguousarray(frame)) != one:
          raise ValueError('the latents are not what was written')
    return latents

  def _arrays(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a shard's memory-mapped latents and checksums."""
    path = cache_folder.shard_path(self.directory, number)
    return tuple(
      np.load(p, mmap_mode='r', allow_pickle=False)
      for p in (path, cache_folder.sums_path(path))
    )


def read_plan(directory: str) -> dict[str, Any]:
  """Returns what a finished cache holds.

  Raises:
    CacheError: there is none.
  """
  return cache_folder.read_finished(
    directory,
    DONE,
    'latent cache in {}: run python -m vdm.prepare latents with the same '
    '--config and --workdir',
  )


def open_cache(
  directory: str,
  source: builders.ClipSource,
  spec: clip_spec.ClipSpec,
  autoencoder: str,
) -> Cache:
  """Opens the cache that a stage trains on, or refuses it.

  Args:
    directory: of the cache.
    source: the stage's clip source.
    spec: the stage's clips.
    autoencoder: fingerprint of the run's autoencoder.

  Raises:
    CacheError: names the first thing that differs, and both values.
  """
  wanted = {
    'autoencoder': autoencoder,
    'dataset': source.info,
    **sizes.keys(spec.whole),
    'mirrored': spec.flip,
  }
  difference = find_difference(read_plan(directory), wanted)
  if not difference and not spec.whole_frames:
    difference = 'whole frames, and stages.<name>.crop or zoom asks for parts'
  if difference:
    raise cache_folder.CacheError(
      f'The latent cache {directory} holds {difference}: make another one '
      'with python -m vdm.prepare latents, or train without '
      'config.data.latents.'
    )
  return Cache(directory, source)


def find_difference(plan: dict[str, Any], wanted: dict[str, Any]) -> str:
  """Says how a plan differs from what is wanted: 'x, not y'; '' if it fits."""
  found, data = plan['dataset'], wanted['dataset']
  for name, one, other, unit in (
    ('data set', found['name'], data['name'], ''),
    ('frame rate', found['frame_rate'], data['frame_rate'], ' frames/s'),
    ('stored resolution', *map(_size, (found, data)), ' px'),
    ('data set version', found['version'], data['version'], ''),
    ('data set content', found['fingerprint'], data['fingerprint'], ''),
    ('autoencoder', plan['autoencoder'], wanted['autoencoder'], ''),
    ('resolution', *map(_size, (plan, wanted)), ' px'),
  ):
    if one != other:
      one, other = str(one)[:12], str(other)[:12]
      return f'latents of another {name} ({one}{unit}, not {other}{unit})'
  if wanted['mirrored'] and not plan['mirrored']:
    return 'no mirrored frames, which config.data.flip asks for'
  return ''


def _size(part: dict[str, Any]) -> str:
  return sizes.text(sizes.of(part))


def cut_shards(
  lengths: IntArray[' records'], plan: dict[str, Any]
) -> list[IntArray[' n']]:
  """Splits records, by their lengths, into shards of consecutive ones."""
  values = (1 + plan['mirrored']) * 2 * math.prod(plan['shape'])
  frames = max(1, SHARD_BYTES // (values * np.dtype(DTYPE).itemsize))
  ends = np.cumsum(lengths)
  number = (ends - 1) // frames
  _, first = np.unique(number, return_index=True)
  return np.split(np.arange(len(ends)), first[1:])
