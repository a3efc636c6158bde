"""Results of prepared files, on disk until the dataset is written.

Per file there are `<key>.json`, written last and by rename, so that its
presence says that the file is done, and `<key>.frames`, the encoded frames of
its shots. A build that was interrupted finds the finished files and prepares
the others alone.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import hashlib
import itertools
import json
import os
from typing import Any

import numpy as np

from vdm.common import files


@dataclasses.dataclass
class Shot:
  """A segment of a video, kept or left out.

  Attributes:
    start: first frame in the source.
    stop: one past the last.
    reason: why it is left out, '' if it is kept.
    measures: brightness, contrast, motion, overlay, distinct; None: unknown.
    hashes: perceptual hashes of its samples, see `duplicates`.
    n: frames at the stored rate.
    places: of its distinct encoded frames in the file of frames, as (offset,
      bytes); none if it is left out.
    repeats: how often each of them is shown.
    preview: place of a JPEG of its middle frame, likewise.
    note: what explains the reason, for people.
  """

  start: int
  stop: int
  reason: str
  measures: dict[str, float | None]
  hashes: list[int]
  n: int
  places: list[tuple[int, int]] = dataclasses.field(default_factory=list)
  repeats: list[int] = dataclasses.field(default_factory=list)
  preview: tuple[int, int] = (0, 0)
  note: str = ''


@dataclasses.dataclass
class Result:
  """What one file contains.

  Attributes:
    name: of the file, in its source.
    reason: why nothing of it can be used, '' if it was decoded.
    message: the same in a sentence.
    facts: those of `inspection.VideoInfo`, with the number of frames in place
      of their times, and the box within black bars; {} where unknown.
    shots: its segments, which hold every frame of it exactly once.
  """

  name: str
  reason: str = ''
  message: str = ''
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  shots: list[Shot] = dataclasses.field(default_factory=list)


class Staging:
  """A folder of results. Cheap to pickle."""

  def __init__(self, folder: str):
    self.folder = folder

  def path(self, name: str, suffix: str) -> str:
    """Returns where a file's part lies; names may be of any kind."""
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    return os.path.join(self.folder, key[:2], key + suffix)

  def write(
    self, result: Result, frames: Iterable[bytes], stamp: Sequence[int]
  ) -> None:
    """Stores a result with its frames, all or nothing.

    Args:
      result: of a file; complete when `frames` are exhausted.
      frames: encoded, shot after shot.
      stamp: identifies the version of the file: its size and time.
    """
    path = self.path(result.name, '.json')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with files.replaced(self.path(result.name, '.frames')) as file:
      for data in frames:
        file.write(data)
    content = dict(stamp=list(stamp), **dataclasses.asdict(result))
    files.write_text(path, json.dumps(content))

  def read(self, name: str, stamp: Sequence[int]) -> Result | None:
    """Returns a file's result; None if there is none of this version."""
    try:
      with open(self.path(name, '.json'), 'rb') as file:
        content = json.load(file)
    except (FileNotFoundError, ValueError):
      return None
    if content.pop('stamp') != list(stamp) or content['name'] != name:
      return None
    content['shots'] = [Shot(**shot) for shot in content['shots']]
    return Result(**content)

  def frames(
    self, name: str, shot: Shot, start: int = 0, stop: int | None = None
  ) -> Iterator[bytes]:
    """Yields the encoded frames of a shot, from `start` to `stop`."""
    order = np.repeat(np.arange(len(shot.places)), shot.repeats)[start:stop]
    with open(self.path(name, '.frames'), 'rb') as file:
      for number, repeats in itertools.groupby(order.tolist()):
        offset, size = shot.places[number]
        file.seek(offset)
        data = file.read(size)
        for _ in repeats:
          yield data

  def preview(self, name: str, shot: Shot) -> bytes:
    """Returns the JPEG of a shot's middle frame."""
    offset, size = shot.preview
    with open(self.path(name, '.frames'), 'rb') as file:
      file.seek(offset)
      return file.read(size)
