"""The index of a data set, and what holds for all of it, beside the records.

The index has every field of the records but the frames, so that splits and
labels can be chosen without reading them.
"""

import collections
import hashlib
import json
import os
from typing import Any

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from vdm.common import files
from vdm.common import sizes
from vdm.data.builders import build_plan
from vdm.data.builders import directional
from vdm.data.builders import reader


class Index(tfds.core.Metadata):
  """Gathers what the reader needs; TFDS saves it with its own metadata.

  Attributes:
    shards: (file name, number of records) of each; set when they are written.
  """

  def __init__(self, plan: build_plan.Plan, version: str):
    self.shards = []
    self._plan = plan
    self._version = version
    self._rows = []
    self._digests = []
    self._skipped = []

  def add(self, record: dict[str, Any]) -> None:
    """Adds a record that is about to be written."""
    digest = hashlib.sha256()
    head = [record['id'], record['label'], sorted(record['splits'])]
    if record['caption']:
      head.append(record['caption'])
    digest.update(json.dumps(head).encode())
    for frame in record['frames']:
      digest.update(len(frame).to_bytes(8, 'little'))
      digest.update(frame)
    self._digests.append((record['id'], digest.digest()))
    row = {k: v for k, v in record.items() if k not in ('frames', 'truth')}
    row['splits'] = [name in record['splits'] for name in self._plan.splits]
    self._rows.append(row)

  def skip(self, skipped: build_plan.Skipped) -> None:
    """Adds a source that gave no shot."""
    if skipped.reason not in build_plan.NO_VIDEO:
      logging.warning(
        'Skipped %s: %s (%s)', skipped.source, skipped.message, skipped.reason
      )
    self._skipped.append(skipped)

  def reasons(self) -> str:
    """Returns why no clip came out."""
    counts = collections.Counter(s.reason for s in self._skipped)
    if not counts:
      return 'there are no sources'
    return ', '.join(f'{n} {reason}' for reason, n in counts.most_common())

  def fingerprint(self) -> str:
    """Returns the sha256 of the content, whoever wrote it in which order.

    It is over the id, label, splits, caption and frames of every record, in
    the order of ids.
    """
    digest = hashlib.sha256()
    for _, record_digest in sorted(self._digests):
      digest.update(record_digest)
    return digest.hexdigest()

  def load_metadata(self, data_dir) -> None:
    """Does nothing: `reader` loads what this class saves."""

  def save_metadata(self, data_dir) -> None:
    """Writes the index, the list of skipped sources and clips.json."""

    def path(name: str) -> str:
      return os.path.join(data_dir, name)

    columns = {
      name: np.array([row[name] for row in self._rows])
      for name in self._rows[0]
    }
    for name in ('shot', 'start', 'n', 'height', 'width', 'label'):
      columns[name] = columns[name].astype(np.int32)
    columns['frame_rate'] = columns['frame_rate'].astype(np.float32)
    files.write_npz(path(reader.INDEX_FILE), columns)
    skipped = [json.dumps(vars(skipped)) + '\n' for skipped in self._skipped]
    files.write_text(path(reader.SKIPPED_FILE), ''.join(skipped))
    plan, settings = self._plan, self._plan.settings
    fingerprint = self.fingerprint()
    for name, data in plan.extras(fingerprint).items():
      files.write_bytes(path(name), data)
    info = dict(
      name=plan.name,
      version=self._version,
      **sizes.keys(sizes.of(settings)),
      frame_rate=settings['frame_rate'],
      encoding=settings['encoding'],
      label_names=list(plan.label_names),
      num_classes=len(plan.label_names),
      directional_labels=directional.labels(plan.name, plan.label_names),
      fingerprint=fingerprint,
      splits=list(plan.splits),
      truth=plan.truth,
      shards=self.shards,
      records=len(self._rows),
      shots=len(set(columns['shot'].tolist())),
      frames=int(columns['n'].sum()),
      skipped=len(self._skipped),
      settings=settings,
    )
    # Last: its presence says that the data set is complete.
    files.write_text(path(reader.INFO_FILE), json.dumps(info, indent=2))
