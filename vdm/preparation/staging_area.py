"""What came of each file, on disk until the dataset is written.

Per file there are `<key>.json`, written last and by rename, so that its
presence says that the file is done, and `<key>.frames`, the encoded frames of
what was kept. A run that was interrupted finds the finished files and works on
the others alone.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import hashlib
import io
import json
import os
from typing import Any

import numpy as np


@dataclasses.dataclass
class Shot:
  """A piece of a video, kept or not.

  Attributes:
    start: first frame in the source.
    stop: one past the last.
    reason: why it was left out, '' if it stays.
    measures: brightness, contrast, motion, overlay, distinct; None: unknown.
    hashes: of its samples, see `duplicates`.
    n: frames at the stored rate.
    places: of its distinct encoded frames among all, as (offset, bytes); none
      if it was left out.
    repeats: how often each of them is shown.
    preview: where a JPEG of its middle frame lies among the frames, as
      (offset, bytes).
    note: what explains the reason, for a person.
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
  """What came of one file.

  Attributes:
    name: of the file, in its source.
    reason: why nothing of it could be used, '' if it was read.
    message: the same in a sentence.
    facts: sha256, height, width, frame_rate, rate_from, frames, seconds,
      codec, quarter_turns, pixel_aspect and box, as far as they are known.
    shots: its pieces, which hold every frame of it exactly once.
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
      result: what came of a file; complete when `frames` are exhausted.
      frames: encoded, shot after shot.
      stamp: what tells another version of the file: its size and time.
    """
    path = self.path(result.name, '.json')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with _replaced(self.path(result.name, '.frames')) as file:
      for data in frames:
        file.write(data)
    with _replaced(path) as file:
      content = dict(stamp=list(stamp), **dataclasses.asdict(result))
      file.write(json.dumps(content).encode())

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
    owners = np.repeat(np.arange(len(shot.places)), shot.repeats)[start:stop]
    with open(self.path(name, '.frames'), 'rb') as file:
      number, data = -1, b''
      for owner in owners.tolist():
        if owner != number:
          offset, size = shot.places[owner]
          file.seek(offset)
          number, data = owner, file.read(size)
        yield data

  def preview(self, name: str, shot: Shot) -> bytes:
    """Returns the JPEG of a shot's middle frame."""
    offset, size = shot.preview
    with open(self.path(name, '.frames'), 'rb') as file:
      file.seek(offset)
      return file.read(size)


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[io.BufferedWriter]:
  """Yields a file that takes the place of `path` when it is whole."""
  # Two processes may work on one file after a restart.
  temporary = f'{path}.{os.getpid()}'
  try:
    with open(temporary, 'wb') as file:
      yield file
    os.replace(temporary, path)
  finally:
    if os.path.exists(temporary):
      os.remove(temporary)
