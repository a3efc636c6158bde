"""Prepares one video file: decodes, screens and stages it.

Every runner, on one machine or many, calls `prepare` once per file. The result
depends on the file and the settings alone, so that who calls it and in which
order changes nothing. A file is decoded twice: once to check it and to measure
its frames, once for the frames that are stored (once in all where the decoded
frames of the first pass fit into a cache).

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import errno
from typing import Any

import av
import cv2
from etils.array_types import FloatArray
import numpy as np

from vdm.common import sizes
from vdm.data import coding
from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import inspection
from vdm.preparation import sources
from vdm.preparation import staging_area
from vdm.preparation import workers
from vdm.preparation.screening import letterbox
from vdm.preparation.screening import observe
from vdm.preparation.screening import rules

_CACHE_BYTES = 256 << 20  # Of decoded frames, for the second pass.
_PREVIEW = 96  # Px of the shorter side of a preview.
# The keys of `config.data` that a result depends on, besides the file and the
# size of the frames.
SETTINGS = (
  'frame_rate',
  'encoding',
  'assumed_rate',
  'upscale',
  'min_frames',
  'screening',
)


@dataclasses.dataclass(frozen=True)
class Task:
  """A file to prepare.

  Attributes:
    file: of the source.
    settings: the part of `config.data` named in `SETTINGS`, as plain dicts, and
      `sizes.keys`.
    max_pixels: of a frame, beyond which the file is left out.
    staging: where the result goes.
  """

  file: sources.File
  settings: Mapping[str, Any]
  max_pixels: int
  staging: staging_area.Staging

  def stamp(self) -> list[int]:
    """Returns what identifies the version of the file."""
    return [self.file.size, self.file.time_ns]


def prepare(task: Task, heartbeat: Callable[[], None]) -> str:
  """Stages the result of a file and returns the file's name.

  Args:
    task: the file.
    heartbeat: called with every frame, see `workers.run`.
  """
  try:
    with task.file.open() as path:
      result, frames = _prepare(path, task, heartbeat)
      task.staging.write(result, frames, task.stamp())
  except decoding.VideoError as error:
    fail(task, workers.Failure(error.reason, str(error)))
  except MemoryError:
    raise  # The process has reached its limit, which `workers` reports.
  except Exception as error:
    if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
      raise  # Not the file's fault.
    # Whatever a file can do to a library costs that file alone.
    fail(task, workers.failure(error))
  return task.file.name


def fail(task: Task, failure: workers.Failure) -> None:
  """Stages the failure of a file."""
  result = staging_area.Result(task.file.name, failure.reason, failure.message)
  task.staging.write(result, (), task.stamp())


def _prepare(
  path: str, task: Task, heartbeat: Callable[[], None]
) -> tuple[staging_area.Result, Iterator[bytes]]:
  """Returns the result of a file and its frames, which complete it."""
  settings = task.settings
  frames = _Frames(path, _CACHE_BYTES, heartbeat)
  observer, nominal = None, 0.0

  def visit(frame, rate):
    nonlocal observer, nominal
    heartbeat()
    observer, nominal = observer or observe.Observer(rate), rate
    observer.visit(frame)
    frames.add(frame)

  info = inspection.inspect(
    path,
    assumed_rate=settings['assumed_rate'],
    max_pixels=task.max_pixels,
    visit=visit,
  )
  _correct_motion(observer.samples, nominal, info.times)
  box = None
  if 'letterbox' in settings['screening']['rules']:
    box = letterbox.find(observer.samples)
  shots, shot_of = _screen(info, box, observer, settings)
  result = staging_area.Result(
    task.file.name, facts=_facts(info, box), shots=shots
  )
  return result, _encode(info, box, frames, shots, shot_of, settings)


def _correct_motion(
  samples: Sequence[observe.Sample], nominal: float, times: FloatArray[' n']
) -> None:
  """Divides motion by the time that passed, not by that at the nominal rate."""
  for sample in samples:
    if sample.motion is not None:
      steps, seconds = sample.until - sample.index, times[sample.until]
      seconds -= times[sample.index]
      sample.motion *= steps / nominal / float(seconds)


def _screen(
  info: inspection.VideoInfo,
  box: geometry.Box | None,
  observer: observe.Observer,
  settings: Mapping[str, Any],
) -> tuple[list[staging_area.Shot], dict[int, staging_area.Shot]]:
  """Returns the shots of a file, and that of every frame that is stored."""
  thumbnails, samples = observer.thumbnails(), observer.samples
  shots, shot_of = [], {}
  for segment in _segments(info, box, thumbnails, settings):
    indices = info.resample(settings['frame_rate'], segment.start, segment.stop)
    distinct, repeats = np.unique(indices, return_counts=True)
    measures = rules.measure(segment, thumbnails, samples, box)
    measures['distinct'] = round(len(distinct) / len(indices), 4)
    reason = segment.reason
    if not reason and len(indices) < settings['min_frames']:
      reason = 'too_short'
    reason = reason or rules.violated_rule(measures, settings['screening'])
    shot = staging_area.Shot(
      start=segment.start,
      stop=segment.stop,
      reason=reason,
      measures=measures,
      hashes=[
        s.hash for s in samples if segment.start <= s.index < segment.stop
      ],
      n=len(indices),
      repeats=[] if reason else repeats.tolist(),
    )
    shots.append(shot)
    if not reason:
      shot_of.update(dict.fromkeys(distinct.tolist(), shot))
  return shots, shot_of


def _segments(
  info: inspection.VideoInfo,
  box: geometry.Box | None,
  thumbnails: np.ndarray,
  settings: Mapping[str, Any],
) -> list[rules.Segment]:
  """Returns the segments of a file: one if all of it is left out."""
  whole = rules.Segment(0, len(info.times))
  if not settings['upscale']:
    try:
      inspection.check_size(info, sizes.of(settings), box)
    except decoding.VideoError as error:
      return [dataclasses.replace(whole, reason=error.reason)]
  indices = info.resample(settings['frame_rate'])
  if len(indices) < settings['min_frames']:
    return [dataclasses.replace(whole, reason='too_short')]
  segments = rules.segments(thumbnails, info.frame_rate, settings['screening'])
  return [
    dataclasses.replace(segment, start=start, stop=stop)
    for segment in segments
    for start, stop in info.unbroken(segment.start, segment.stop)
  ]


def _encode(
  info: inspection.VideoInfo,
  box: geometry.Box | None,
  frames: '_Frames',
  shots: Sequence[staging_area.Shot],
  shot_of: Mapping[int, staging_area.Shot],
  settings: Mapping[str, Any],
) -> Iterator[bytes]:
  """Yields previews and encoded frames; notes their places in the shots."""
  middles = {(shot.start + shot.stop) // 2: shot for shot in shots}
  indices = sorted({*middles, *shot_of})
  offset = 0
  for index, frame in zip(indices, frames.read(indices, info.field_order)):
    if index in middles:
      data = _preview(geometry.upright(frame, info.pixel_aspect, box))
      middles[index].preview = (offset, len(data))
      offset += len(data)
      yield data
    if index in shot_of:
      image = geometry.fit(frame, sizes.of(settings), info.pixel_aspect, box)
      data = coding.encode_frame(image, settings['encoding'])
      shot_of[index].places.append((offset, len(data)))
      offset += len(data)
      yield data


def _preview(image: np.ndarray) -> bytes:
  height, width = image.shape[:2]
  scale = min(1.0, _PREVIEW / min(height, width))
  size = [min(4 * _PREVIEW, max(1, round(s * scale))) for s in (width, height)]
  image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
  _, data = cv2.imencode(
    '.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80]
  )
  return data.tobytes()


def _facts(
  info: inspection.VideoInfo, box: geometry.Box | None
) -> dict[str, Any]:
  facts = dataclasses.asdict(info)
  times = facts.pop('times')
  return dict(
    facts,
    frame_rate=round(info.frame_rate, 4),
    frames=len(times),
    seconds=round(float(times[-1]) + 1 / info.frame_rate, 3),
    box=box,
  )


class _Frames:
  """The decoded frames of a file, cached as long as they are few bytes."""

  def __init__(self, path: str, max_bytes: int, heartbeat: Callable[[], None]):
    self._path, self._heartbeat = path, heartbeat
    self._bytes_left, self._cached = max_bytes, []

  def add(self, frame: av.VideoFrame):
    if self._cached is None:
      return
    self._bytes_left -= sum(plane.buffer_size for plane in frame.planes)
    self._cached.append(frame)
    if self._bytes_left < 0:
      self._cached = None

  def read(
    self, indices: Sequence[int], field_order: str
  ) -> Iterator[av.VideoFrame]:
    """Yields frames from the cache, or decodes the file again."""
    choice = indices, self._heartbeat
    if self._cached is None:
      yield from decoding.read(self._path, *choice, field_order=field_order)
    else:
      yield from decoding.choose(self._cached, *choice, field_order=field_order)
