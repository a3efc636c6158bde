"""What the writer is given: shots, skipped sources, the plan of a data set.

A shot is an unbroken run of frames at one rate. The writer cuts it into
records of at most `RECORD_FRAMES` frames, so that reading a window of a long
shot does not read the whole of it: 16 frames of 64 px cost 0.1 ms from records
of 64 frames and 1 ms from records of 128. Windows are drawn inside shots, never
across two of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

RECORD_FRAMES = 64  # Of a record, at most.
# Reasons to leave out what nobody takes for a video: listed, not warned of.
NO_VIDEO = ('hidden', 'picture', 'text', 'sound', 'other_suffix')


class BuildError(RuntimeError):
  """A data set cannot be built; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Shot:
  """Frames of one shot and what is known about them.

  Attributes:
    id: unique in the data set, the same on every machine.
    frames: encoded frames, in order; read once.
    n: number of frames.
    frame_rate: frames per second.
    height: of the source, px.
    width: of the source, px.
    splits: names of the splits that it belongs to.
    source_sha256: hex digest of the source file, '' if there is none.
    group: shots of one group come from the same recording.
    label: class index, -1 if there is none.
    caption: '' if there is none.
    truth: arrays known exactly; those with a row per frame are cut with the
      frames.
  """

  id: str
  frames: Iterable[bytes]
  n: int
  frame_rate: float
  height: int
  width: int
  splits: Sequence[str]
  source_sha256: str = ''
  group: str = ''
  label: int = -1
  caption: str = ''
  truth: Mapping[str, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Skipped:
  """A source that gave no shot, with a reason code and a sentence."""

  source: str
  reason: str
  message: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """Everything that the writer needs to build one data set.

  Attributes:
    name: of the data set, as in `config.data.name`.
    config_name: names what the content depends on; part of the directory.
    settings: what the content depends on, for people to read.
    label_names: one per class; empty if there are no labels.
    splits: names of all splits a shot can belong to.
    shots: makes the shots, in an order that does not depend on the machine.
    truth: per truth array its dtype and shape, None for the axis of frames.
    extras: called when all shots are written, with the fingerprint; returns
      further files of the data set, by name.
    done: called when the data set is published.
  """

  name: str
  config_name: str
  settings: Mapping[str, Any]
  label_names: Sequence[str]
  splits: Sequence[str]
  shots: Callable[[], Iterator[Shot | Skipped]]
  truth: Mapping[str, tuple[str, tuple[int | None, ...]]] = dataclasses.field(
    default_factory=dict
  )
  extras: Callable[[str], Mapping[str, bytes]] = lambda fingerprint: {}
  done: Callable[[], None] = lambda: None


def settings_hash(settings: Mapping[str, Any]) -> str:
  """Returns ten hex digits that change with any value of `settings`."""
  text = json.dumps(settings, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:10]
