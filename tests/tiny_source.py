"""A clip source in memory, and batches of it."""

import dataclasses

import numpy as np

from vdm.data import clip_spec
from vdm.data import coding
from vdm.data import pipeline

SIZE = 8  # Of a stored frame, px.


class Source:
  """A clip source in memory whose pixels say what they are.

  Red is the shot, green the frame of the shot, blue the column. Record rows
  start at 100, so they are not the places of records in the index.
  """

  def __init__(self, lengths, record=5, broken=(), labels=None):
    self.info = {'name': 'fake', 'frame_rate': 25.0, 'resolution': SIZE}
    self.broken, self._frames, table = frozenset(broken), {}, []
    for shot, length in enumerate(lengths):
      label = shot if labels is None else labels[shot]
      told = f'clip of shot{shot}'
      for start in range(0, length, record):
        stop = min(start + record, length)
        row = 100 + len(table)
        table.append(
          (row, f's{shot}f{start}', shot, start, stop - start, label, told)
        )
        self._frames[row] = [_frame(shot, i) for i in range(start, stop)]
    names = ('row', 'id', 'shot', 'start', 'n', 'label', 'caption')
    self.index = {k: np.array(v) for k, v in zip(names, zip(*table))}

  def frames(self, row, start, stop):
    if row in self.broken:
      raise RuntimeError('chunk data hash mismatch')
    return self._frames[row][start:stop]


def _frame(shot, position):
  image = np.empty((SIZE, SIZE, 3), np.uint8)
  image[..., 0], image[..., 1] = shot, position
  image[..., 2] = np.arange(SIZE)
  return coding.encode_frame(image, 'webp')


LENGTHS = (9, 20, 4, 7, 12, 3, 8)  # Shot 5 is too short for 4 frames.
DEFAULTS = dict(
  frames=4,
  stride=1,
  resolution=SIZE,
  batch=12,
  seed=3,
  stage='video',
  threads=0,
)


SPEC = {field.name for field in dataclasses.fields(clip_spec.ClipSpec)}


def make_batches(source, **changes):
  """Calls `pipeline.make_batches`; `changes` are of `DEFAULTS`."""
  options = {**DEFAULTS, **changes}
  spec = {k: options.pop(k) for k in SPEC & options.keys()}
  return pipeline.make_batches(source, clip_spec.ClipSpec(**spec), **options)


def take(source, count, **changes):
  """The first `count` batches and how often a record was replaced in them."""
  with make_batches(source, **changes) as batches:
    return [next(batches) for _ in range(count)], batches.bad_records


def starts_and_shots(batches):
  clips = np.concatenate([batch['video'] for batch in batches])
  return clips[:, 0, 0, 0, 1].astype(int), clips[:, 0, 0, 0, 0].astype(int)
