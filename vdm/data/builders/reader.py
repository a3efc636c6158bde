"""Opens a data set of clips and reads encoded frames of its records.

A data set is one TFDS split, `clips`, in ArrayRecord files, and beside it
`index.npz` with every field but the frames and `clips.json` with what holds
for all of it. Choosing a split or a label touches the index alone.

Records are read without TFDS: ArrayRecord gives the bytes of a
`tf.train.Example`, whose message is rebuilt below for protobuf from its
published definition (tensorflow/core/example/{example,feature}.proto).
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import threading
from typing import Any

from array_record.python import array_record_data_source
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
import numpy as np

from vdm.data.builders import directional

INFO_FILE = 'clips.json'
INDEX_FILE = 'index.npz'
SKIPPED_FILE = 'skipped.jsonl'
SPLIT = 'clips'  # The one stored split; the others are flags in the index.


class MissingDataset(FileNotFoundError):
  """A data set has not been built; the message names the command."""


class ClipSource:
  """The records of one split: an index in memory, frames on demand.

  Cheap to pickle: another process opens the same directory anew. Safe to use
  from several threads.

  Attributes:
    directory: of the data set.
    split: the split's name, 'train' or 'validation'.
    info: name, version, resolution, width (unless frames are square),
      frame_rate, encoding, label_names, num_classes, directional_labels (see
      `directional`), fingerprint (sha256 over the content) and the settings.
    index: arrays with one row a record of the split: id, source_sha256, shot
      (unique per shot), start (first frame of the record in its shot), n
      (frames), frame_rate, height and width (of the source, px), group, label
      (-1: none), caption, row (the record's position in the data set).
  """

  def __init__(self, directory: str, split: str, split_list: str = '01'):
    self.directory = os.fspath(directory)
    self.split = split
    self.split_list = split_list
    self.info = read_info(self.directory)
    table = read_index(self.directory)
    member = table.pop('splits')[:, _split_column(self, split, split_list)]
    table['row'] = np.arange(len(member))
    self.index = {name: column[member] for name, column in table.items()}
    self._records = None
    self._lock = threading.Lock()

  def __reduce__(self):
    return ClipSource, (self.directory, self.split, self.split_list)

  def __len__(self) -> int:
    return len(self.index['row'])

  def __repr__(self) -> str:
    where = f'{self.directory!r}, {self.split!r}'
    return f'ClipSource({where}: {len(self)} records)'

  def frames(
    self, row: int, start: int = 0, stop: int | None = None
  ) -> list[bytes]:
    """Returns encoded frames of one record, for `coding.decode_frame`.

    Args:
      row: the record's position in the data set, from `index['row']`.
      start: first frame, counted in the record.
      stop: one past the last frame; None: to the end.

    Raises:
      RuntimeError: the record is corrupt.
    """
    return list(self._features(row)['frames'].bytes_list.value[start:stop])

  def truth(self, row: int) -> dict[str, np.ndarray] | None:
    """Returns the exact truth of one record; None where there is none.

    Raises:
      RuntimeError: the record is corrupt.
    """
    if not self.info['truth']:
      return None
    features = self._features(row)
    arrays = {}
    for name, (dtype, shape) in self.info['truth'].items():
      (data,) = features[f'truth/{name}'].bytes_list.value
      shape = [-1 if size is None else size for size in shape]
      arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return arrays

  def _features(self, row: int):
    try:
      data = self._open()[int(row)]
      return _example_class().FromString(data).features.feature
    except Exception as error:
      raise RuntimeError(
        f'Record {row} of {self.directory} cannot be read: {error}'
      ) from error

  def _open(self):
    # Opened at the first read, so that every process has its own files.
    with self._lock:
      if self._records is None:
        self._records = array_record_data_source.ArrayRecordDataSource(
          [
            _Shard(os.path.join(self.directory, name), length)
            for name, length in self.info['shards']
          ]
        )
      return self._records


def open_source(
  directory: str, split: str, split_list: str = '01'
) -> ClipSource:
  """Opens one split of a data set.

  Args:
    directory: what `preparation.datasets.dataset_dir` returned.
    split: 'train' or 'validation'.
    split_list: which official list makes the splits, where a data set has
      several ('01', '02' or '03' for UCF101).

  Raises:
    MissingDataset: there is no finished data set.
    ValueError: it has no such split.
  """
  return ClipSource(directory, split, split_list)


def is_complete(directory: str) -> bool:
  """Returns whether a directory holds a finished data set."""
  return os.path.exists(os.path.join(directory, INFO_FILE))


def read_info(directory: str) -> dict[str, Any]:
  """Returns what holds for the whole data set.

  Raises:
    MissingDataset: there is no finished data set.
  """
  if not is_complete(directory):
    raise MissingDataset(
      f'There is no data set in {directory}; build it with `python -m'
      ' vdm.prepare clips --config <this config>`.'
    )
  with open(os.path.join(directory, INFO_FILE)) as file:
    info = json.load(file)
  if 'directional_labels' not in info:  # Written by an earlier version.
    names = directional.labels(info['name'], info['label_names'])
    info['directional_labels'] = names
  return info


def read_index(directory: str) -> dict[str, np.ndarray]:
  """Returns all columns of the index, one row a record, in stored order."""
  path = os.path.join(directory, INDEX_FILE)
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def read_skipped(directory: str) -> list[dict[str, str]]:
  """Returns source, reason and message of every file left out."""
  with open(os.path.join(directory, SKIPPED_FILE)) as file:
    return [json.loads(line) for line in file]


def _split_column(source: ClipSource, split: str, split_list: str) -> int:
  splits = source.info['splits']
  for name in (split, f'{split}_{split_list}'):
    if name in splits:
      return splits.index(name)
  raise ValueError(
    f'{source.directory} has no split {split!r} of list {split_list!r}; it'
    f' has {", ".join(splits)}.'
  )


@dataclasses.dataclass(frozen=True)
class _Shard:
  """ArrayRecord's FileInstruction: a whole file of known length."""

  filename: str
  examples_in_shard: int
  skip: int = 0

  @property
  def take(self) -> int:
    return self.examples_in_shard


@functools.cache
def _example_class():
  """Returns the message class of `tf.train.Example`."""
  kind = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(
    name='example.proto', package='tensorflow', syntax='proto3'
  )

  def message(name: str, fields: Mapping[str, tuple], parent=None):
    added = parent.nested_type.add() if parent else file.message_type.add()
    added.name = name
    for number, (field, (label, of)) in enumerate(fields.items(), 1):
      field = added.field.add(name=field, number=number, label=label)
      if isinstance(of, str):
        field.type, field.type_name = kind.TYPE_MESSAGE, f'.tensorflow.{of}'
      else:
        field.type = of
    return added

  one, many = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED
  message('BytesList', {'value': (many, kind.TYPE_BYTES)})
  message('FloatList', {'value': (many, kind.TYPE_FLOAT)})
  message('Int64List', {'value': (many, kind.TYPE_INT64)})
  lists = ('bytes', 'Bytes'), ('float', 'Float'), ('int64', 'Int64')
  feature = message(
    'Feature', {f'{name}_list': (one, f'{of}List') for name, of in lists}
  )
  feature.oneof_decl.add(name='kind')
  for field in feature.field:
    field.oneof_index = 0
  features = message('Features', {'feature': (many, 'Features.FeatureEntry')})
  entry = message(
    'FeatureEntry',
    {'key': (one, kind.TYPE_STRING), 'value': (one, 'Feature')},
    parent=features,
  )
  entry.options.map_entry = True
  message('Example', {'features': (one, 'Features')})
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(
    pool.FindMessageTypeByName('tensorflow.Example')
  )
