"""Writes a plan's shots as a TFDS data set, with its index beside it.

TFDS supplies the layout, the features, the metadata and the publication by
rename. Its own writer is replaced: it sorts all records by key, in memory up
to 1 GB and through TensorFlow's file system after that, and an order that
follows the sources is wanted here, at any size, without TensorFlow.

The result is read by `tfds.builder_from_directory(d).as_data_source('clips')`
and, without TFDS, by `reader.ClipSource`.
"""

from collections.abc import Iterator
import contextlib
import io
import itertools
import json
import os
import shutil
import socket
import tempfile

from absl import logging
from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds

from vdm.common import files
from vdm.data.builders import build_plan
from vdm.data.builders import index
from vdm.data.builders import reader

_OWNER_FILE = 'owner.json'
_SHARD_BYTES = 256 << 20
# One record a group, so that any is read alone; images are compressed already.
_OPTIONS = 'group_size:1,uncompressed'


def write(plan: build_plan.Plan, *, root: str, version: str) -> str:
  """Builds the data set and returns its directory.

  It appears there by one rename when it is complete.

  Args:
    plan: what to write.
    root: folder of all data sets.
    version: of the data set, part of its directory.

  Raises:
    BuildError: there are no shots, or something else is in its place.
  """
  builder = _make_builder(plan, root, version)
  directory = os.fspath(builder.data_dir)
  os.makedirs(os.path.dirname(directory), exist_ok=True)
  _remove_abandoned(os.path.dirname(directory))
  # TFDS writes to the standard output, and requires a download folder.
  with (
    contextlib.redirect_stdout(io.StringIO()),
    tempfile.TemporaryDirectory(prefix='vdm_') as downloads,
  ):
    try:
      builder.download_and_prepare(
        download_dir=downloads, file_format='array_record'
      )
    except OSError:
      # Another process published the same data set first.
      if not reader.is_complete(directory):
        raise
  if not reader.is_complete(directory):
    raise build_plan.BuildError(
      f'{directory} holds something other than clips; move it away.'
    )
  plan.done()
  return directory


def _make_builder(plan: build_plan.Plan, root: str, version: str) -> 'Clips':
  # TFDS warns of every configuration that its class does not list.
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    return Clips(plan, root=root, version=version)
  finally:
    logging.set_verbosity(verbosity)


class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The TFDS builder of any plan."""

  def __init__(self, plan: build_plan.Plan, *, root: str, version: str):
    self.plan = plan
    self.name = plan.name
    self._index = index.Index(plan, version)
    config = tfds.core.BuilderConfig(name=plan.config_name, version=version)
    super().__init__(data_dir=root, config=config, version=version)

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features
    names = list(self.plan.label_names)
    text, integer = features.Text, np.int32
    truth = {
      name: features.Tensor(
        shape=shape, dtype=np.dtype(dtype), encoding='bytes'
      )
      for name, (dtype, shape) in self.plan.truth.items()
    }
    fields = dict(
      id=text(),
      source_sha256=text(),
      shot=integer,
      start=integer,
      n=integer,
      frame_rate=np.float32,
      height=integer,
      width=integer,
      group=text(),
      label=features.ClassLabel(names=names) if names else integer,
      caption=text(),
      splits=features.Sequence(text()),
      frames=features.Sequence(text()),  # Encoded images.
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description='Video clips as encoded frames.',
      features=features.FeaturesDict(
        dict(fields, truth=truth) if truth else fields
      ),
      disable_shuffling=True,
      metadata=self._index,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    return {reader.SPLIT: self._generate_examples()}

  def _generate_examples(self):
    for shot_number, shot in enumerate(self._shots()):
      frames = iter(shot.frames)
      for start in range(0, shot.n, build_plan.RECORD_FRAMES):
        chunk = list(itertools.islice(frames, build_plan.RECORD_FRAMES))
        assert len(chunk) == min(build_plan.RECORD_FRAMES, shot.n - start)
        record = _record(shot, shot_number, start, chunk)
        self._index.add(record)
        yield record['id'], record

  def _shots(self) -> Iterator[build_plan.Shot]:
    for shot in self.plan.shots():
      if isinstance(shot, build_plan.Skipped):
        self._index.skip(shot)
      else:
        yield shot

  def _download_and_prepare(self, dl_manager, download_config) -> None:
    del download_config
    owner = dict(host=socket.gethostname(), pid=os.getpid())
    files.write_json(os.path.join(self.data_dir, _OWNER_FILE), owner)
    (split, examples), *_ = self._split_generators(dl_manager).items()
    template = self._get_filename_template(split)
    shards = _Shards(self.data_dir)
    for _, example in examples:
      shards.write(self.info.features.serialize_example(example))
    lengths = shards.close()
    if not lengths:
      raise build_plan.BuildError(
        f'No clip came out for {self.plan.name}: {self._index.reasons()}.'
      )
    names = []
    for number, part in enumerate(shards.paths):
      path = template.sharded_filepath(
        shard_index=number, num_shards=len(lengths)
      )
      os.rename(part, path)
      names.append(path.name)
    self._index.shards = list(zip(names, lengths))
    split_info = tfds.core.SplitInfo(
      name=split,
      shard_lengths=lengths,
      num_bytes=shards.num_bytes,
      filename_template=template,
    )
    self.info.set_splits(tfds.core.splits.SplitDict([split_info]))
    os.remove(os.path.join(self.data_dir, _OWNER_FILE))


def _record(
  shot: build_plan.Shot, number: int, start: int, frames: list[bytes]
) -> dict:
  record = dict(
    id=f'{shot.id}:{start:06d}',
    source_sha256=shot.source_sha256,
    shot=number,
    start=start,
    n=len(frames),
    frame_rate=shot.frame_rate,
    height=shot.height,
    width=shot.width,
    group=shot.group,
    label=shot.label,
    caption=shot.caption,
    splits=list(shot.splits),
    frames=frames,
  )
  if shot.truth is not None:
    part = slice(start, start + len(frames))
    record['truth'] = {
      name: array[part] if array.shape[:1] == (shot.n,) else array
      for name, array in shot.truth.items()
    }
  return record


class _Shards:
  """ArrayRecord files of about `_SHARD_BYTES`, filled one after another."""

  def __init__(self, directory: str):
    self.paths = []
    self.num_bytes = 0
    self._directory = directory
    self._lengths = []
    self._writer = None
    self._shard_bytes = 0

  def write(self, data: bytes) -> None:
    if self._writer is None or self._shard_bytes > _SHARD_BYTES:
      self.close()
      path = os.path.join(self._directory, f'part_{len(self.paths):05d}')
      self._writer = array_record_module.ArrayRecordWriter(path, _OPTIONS)
      self._shard_bytes = 0
      self.paths.append(path)
      self._lengths.append(0)
    self._writer.write(data)
    self._lengths[-1] += 1
    self._shard_bytes += len(data)
    self.num_bytes += len(data)

  def close(self) -> list[int]:
    if self._writer is not None:
      self._writer.close()
      self._writer = None
    return self._lengths


def _remove_abandoned(folder: str) -> None:
  """Removes unfinished builds of this machine whose processes have ended."""
  for name in os.listdir(folder):
    path = os.path.join(folder, name)
    try:
      with open(os.path.join(path, _OWNER_FILE)) as file:
        owner = json.load(file)
    except (OSError, ValueError):
      continue
    if owner['host'] == socket.gethostname() and not _is_alive(owner['pid']):
      logging.info('Removing the unfinished build %s.', path)
      shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True
