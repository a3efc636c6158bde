"""Prepares one video file: reads, screens and stages it.

This is what every runner, on one machine or many, calls once per file. It
depends on the file and the settings alone, so that who calls it and in which
order changes nothing. The file is decoded twice: once to see whether it can be
trusted and what it shows, once for the frames that stay (once in all where the
decoded frames of the first time fit into memory).

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import errno
from typing import Any

import av
import cv2
import numpy as np

from vdm.data import coding
from vdm.preparation import decoding
from vdm.preparation import staging_area
from vdm.preparation import workers
from vdm.preparation.screening import letterbox
from vdm.preparation.screening import observe
from vdm.preparation.screening import rules

_KEEP_BYTES = 256 << 20  # Of decoded frames, kept for the second time.
_PREVIEW = 96  # Px of the shorter side of a preview.
# What the content of a result depends on, besides the file.
SETTINGS = (
  *('resolution', 'frame_rate', 'encoding', 'assumed_rate', 'upscale'),
  *('min_frames', 'screening'),
)


@dataclasses.dataclass(frozen=True)
class Task:
  """A file to prepare.

  Attributes:
    file: with `name`, `size` and `open`, see `builders.sources.File`.
    settings: the part of `config.data` named in `SETTINGS`, as plain dicts.
    max_pixels: of a frame, beyond which the file is left out.
    staging: where the result goes.
  """

  file: Any
  settings: Mapping[str, Any]
  max_pixels: int
  staging: staging_area.Staging

  def stamp(self) -> list[int]:
    """Returns what tells another version of the file."""
    return [self.file.size, self.file.time_ns]


def prepare(task: Task, alive: Callable[[], None]) -> str:
  """Stages what comes of a file and returns its name.

  Args:
    task: the file.
    alive: called with every frame, for whoever watches.
  """
  name, write = task.file.name, task.staging.write
  try:
    with task.file.open() as path:
      write(*_prepare(name, path, task, alive), task.stamp())
      return name
  except decoding.VideoError as error:
    result = staging_area.Result(name, error.reason, str(error))
  except MemoryError:
    raise
  except Exception as error:
    if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
      raise  # Not the file's fault.
    # Whatever a file can do to a library costs that file alone.
    text = f'{type(error).__name__}: {error}'.splitlines()[0][:300]
    reason = 'memory' if 'nsufficient memory' in text else 'failed'
    result = staging_area.Result(name, reason, text)
  write(result, (), task.stamp())
  return name


def fail(task: Task, failure: workers.Failure) -> None:
  """Stages a file that its process did not survive."""
  result = staging_area.Result(task.file.name, failure.reason, failure.message)
  task.staging.write(result, (), task.stamp())


def _prepare(name, path, task, alive):
  """Returns the result of a file and its frames, which complete it."""
  settings, screening = task.settings, task.settings['screening']
  kept = _Kept(_KEEP_BYTES)
  observer = None

  def watch(rate):
    nonlocal observer
    observer = observe.Observer(rate)

    def visit(frame):
      alive()
      observer.visit(frame)
      kept.add(frame)

    return visit

  source = decoding.inspect(
    path,
    assumed_rate=settings['assumed_rate'],
    max_pixels=task.max_pixels,
    watch=watch,
  )
  smalls, samples = observer.smalls(), observer.samples
  box = letterbox.find(samples) if 'letterbox' in screening['rules'] else None
  result = staging_area.Result(name, facts=_facts(source, box, len(smalls)))
  chosen = {}
  for number, piece in enumerate(_pieces(source, box, smalls, settings)):
    indices = _select(source, piece, settings['frame_rate'])
    measures = rules.measure(piece, smalls, samples, box)
    measures['distinct'] = round(len(set(indices)) / len(indices), 4)
    reason = piece.reason
    if not reason and len(indices) < settings['min_frames']:
      reason = 'too_short'
    reason = reason or rules.objection(measures, screening)
    hashes = [s.hash for s in samples if piece.start <= s.index < piece.stop]
    shot = staging_area.Shot(
      start=piece.start,
      stop=piece.stop,
      reason=reason,
      measures=measures,
      hashes=hashes,
      n=len(indices),
    )
    result.shots.append(shot)
    if not reason:
      chosen[number] = np.unique(indices, return_counts=True)
  frames = _encode(path, kept, source, box, result, chosen, settings, alive)
  return result, frames


def _pieces(source, box, smalls, settings) -> list[rules.Piece]:
  """Returns the pieces of a file; what condemns all of it comes first."""
  whole = rules.Piece(0, len(smalls))
  if not settings['upscale']:
    try:
      decoding.check_size(source, settings['resolution'], box)
    except decoding.VideoError as error:
      whole.reason = error.reason
  indices = _select(source, whole, settings['frame_rate'])
  if not whole.reason and len(indices) < settings['min_frames']:
    whole.reason = 'too_short'
  if whole.reason:
    return [whole]
  return rules.pieces(smalls, source.frame_rate, settings['screening'])


def _encode(path, kept, source, box, result, chosen, settings, alive):
  """Yields previews and the frames that stay; notes where each of them is."""
  middles = {(s.start + s.stop) // 2: s for s in result.shots}
  owner = {int(i): number for number, c in chosen.items() for i in c[0]}
  wanted = sorted({*middles, *owner})
  own = {number: [] for number in chosen}
  offset = 0
  for index, frame in zip(wanted, kept.read(path, wanted, alive)):
    if index in middles:
      data = _preview(frame, source, box)
      middles[index].preview = (offset, len(data))
      offset += len(data)
      yield data
    if index in owner:
      image = decoding.fit(
        frame, settings['resolution'], source.pixel_aspect, box
      )
      data = coding.encode_frame(image, settings['encoding'])
      own[owner[index]].append((offset, len(data)))
      offset += len(data)
      yield data
  for number, (_, repeats) in chosen.items():
    shot = result.shots[number]
    shot.places, shot.repeats = own[number], repeats.tolist()


class _Kept:
  """The decoded frames of a file, as long as they are few bytes."""

  def __init__(self, most: int):
    self._left, self._frames = most, []

  def add(self, frame: av.VideoFrame):
    if self._frames is None:
      return
    self._left -= sum(plane.buffer_size for plane in frame.planes)
    self._frames.append(frame)
    if self._left < 0:
      self._frames = None

  def read(self, path: str, indices, alive) -> Iterator[av.VideoFrame]:
    if self._frames is None:
      yield from decoding.read(path, indices, alive)
      return
    for index in indices:
      alive()
      yield self._frames[index]


def _select(source: decoding.Source, piece: rules.Piece, rate: float):
  times = source.times[piece.start : piece.stop]
  return (decoding.select(times - times[0], rate) + piece.start).tolist()


def _preview(frame: av.VideoFrame, source: decoding.Source, box) -> bytes:
  image = decoding.upright(frame, source.pixel_aspect, box)
  height, width = image.shape[:2]
  scale = min(1.0, _PREVIEW / min(height, width))
  size = [min(4 * _PREVIEW, max(1, round(s * scale))) for s in (width, height)]
  image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
  _, data = cv2.imencode(
    '.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80]
  )
  return data.tobytes()


def _facts(source: decoding.Source, box, frames: int) -> dict[str, Any]:
  last = 1 / source.frame_rate
  facts = dataclasses.asdict(source)
  times = facts.pop('times')
  return dict(
    facts,
    frame_rate=round(source.frame_rate, 4),
    frames=frames,
    seconds=round(float(times[-1]) + last, 3),
    box=box,
  )
