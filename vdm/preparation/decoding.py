"""Reading videos frame by frame, strictly and in order.

A file is read from its first frame to its last, by PyAV in one thread, and
any damage that the decoder notices rejects it. Seeking is never used: it gives
wrong frames on genuine files of UCF101. The order in which frames come out is
trusted; their timestamps only where they increase strictly and without holes,
else frame i is shown at i / (average rate). A container without timestamps
(a raw stream) states no rate: what it would be given is the caller's to say.

A frame becomes a square by a crop around the centre and area averaging, in the
orientation and with the pixel aspect that the file asks for: nothing is
squashed, nothing is enlarged, and a source smaller than that is rejected.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import hashlib
import itertools
import os
import threading

import av
import cv2
import numpy as np

_MAX_HOLE = 5.0  # Seconds between frames beyond which timestamps are wrong.
_USUAL_RATE = 25.0  # Where nobody says anything, for what needs no precision.
_MAX_RATE = 1000  # Frames a second; a header that states more is wrong.
_MAX_ASPECT = 8.0  # Of a pixel, either way; a header that states more is wrong.
_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS.

_local = threading.local()


class VideoError(ValueError):
  """A file cannot be used.

  Attributes:
    reason: undecodable | no_video_stream | truncated | empty | too_small |
      too_large | no_frame_rate.
  """

  def __init__(self, reason: str, message: str):
    super().__init__(message)
    self.reason = reason


@dataclasses.dataclass(frozen=True)
class Source:
  """What `inspect` found in a file that decodes from end to end.

  Attributes:
    height: as shown, after rotation and pixel aspect, px.
    width: as shown, px.
    frame_rate: average frames per second.
    rate_from: 'timestamps' | 'header' (timestamps are unusable) | 'assumed'.
    pixel_aspect: width of a pixel over its height, before rotation.
    quarter_turns: anticlockwise, that bring a stored frame upright.
    codec: FFmpeg's name of it.
    times: [n] float64, when each frame is shown, seconds from the first.
    sha256: hex digest of the file.
  """

  height: int
  width: int
  frame_rate: float
  rate_from: str
  pixel_aspect: float
  quarter_turns: int
  codec: str
  times: np.ndarray
  sha256: str


def inspect(
  path: str,
  *,
  assumed_rate: float = 0.0,
  max_pixels: int = 0,
  watch: Callable[[float], Callable[[av.VideoFrame], None]] | None = None,
) -> Source:
  """Decodes a whole file without keeping its frames.

  Args:
    path: of the file.
    assumed_rate: frames per second of a stream that states none; 0: such a
      stream is rejected.
    max_pixels: of a frame, beyond which the file is rejected; 0: any number.
    watch: called once with the nominal frame rate; what it returns is called
      with every frame, in order.

  Raises:
    VideoError: if it is damaged or holds no usable video.
  """
  if not os.path.getsize(path):
    raise VideoError('empty', 'the file has no bytes')
  stamps = []
  with _open(path, max_pixels) as (container, stream):
    declared, least = stream.frames, _least_seconds(container, stream)
    rate = stream.average_rate or stream.guessed_rate
    states_rate = not container.format.flags & _NO_TIMESTAMPS
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
      aspect = 1.0
    codec = stream.codec_context.name
    for frame in _decode(container, stream):
      if not stamps:
        height, width = _shown_size(frame, aspect)
        turns = _quarter_turns(frame)
        to_rgb(frame)  # Raises for a format unknown to it.
        if watch:
          nominal = rate if states_rate and _is_sane(rate) else assumed_rate
          visit = watch(float(nominal or _USUAL_RATE))
      if watch:
        visit(frame)
      stamps.append(None if frame.pts is None else frame.pts * frame.time_base)
  if not stamps:
    raise VideoError('empty', 'no frame can be decoded')
  # Packed B-frames may hide one.
  if len(stamps) < declared - 1:
    raise VideoError(
      'truncated',
      f'the header declares {declared} frames and {len(stamps)} decode',
    )
  # A reader of raw streams makes timestamps and a rate up.
  times = _trusted_times(stamps) if states_rate else None
  rate_from = 'timestamps'
  if times is None:
    rate_from = 'header'
    if not states_rate or not _is_sane(rate):
      if not assumed_rate:
        raise VideoError('no_frame_rate', f'the file states {rate} frames/s')
      rate, rate_from = assumed_rate, 'assumed'
    times = np.arange(len(stamps)) / float(rate)
  elif not _is_sane(rate):
    rate = (len(stamps) - 1) / times[-1] if times[-1] else assumed_rate or 1.0
  if states_rate and times[-1] + 1 / float(rate) < least:
    raise VideoError(
      'truncated',
      f'the header declares {least:.3g} s or more and {times[-1]:.3g} s decode',
    )
  return Source(
    height=height,
    width=width,
    frame_rate=float(rate),
    rate_from=rate_from,
    pixel_aspect=aspect,
    quarter_turns=turns,
    codec=codec,
    times=times,
    sha256=file_sha256(path),
  )


def select(times: np.ndarray, frame_rate: float) -> np.ndarray:
  """Returns the indices of frames shown at ticks of a constant rate.

  Args:
    times: [n] seconds, strictly increasing from 0.
    frame_rate: ticks per second. The frame on show at each tick is taken:
      slower sources repeat frames, faster ones drop some.

  Returns:
    [m] int64, not decreasing.
  """
  ticks = np.arange(0.0, times[-1] + 1e-9, 1.0 / frame_rate)
  # Containers that count milliseconds put frames up to one beside their tick.
  return np.searchsorted(times, ticks + 1e-3, side='right') - 1


def decode(
  path: str, *, frame_rate: float, resolution: int
) -> Iterator[np.ndarray]:
  """Yields the frames of a file at one rate, uint8 [h w 3] RGB, h = w.

  Reads the file twice, first to see whether it can be trusted, and holds one
  frame at a time.

  Args:
    path: of the video.
    frame_rate: frames per second that come out.
    resolution: height and width that come out, px.

  Raises:
    VideoError: if the file cannot be used, before the first frame.
  """
  source = inspect(path)
  check_size(source, resolution)
  indices, repeats = np.unique(
    select(source.times, frame_rate), return_counts=True
  )
  for frame, times in zip(read(path, indices), repeats):
    image = fit(frame, resolution, source.pixel_aspect)
    yield from itertools.repeat(image, times)


def check_size(
  source: Source,
  resolution: int,
  box: tuple[int, int, int, int] | None = None,
) -> None:
  """Raises VideoError if frames, or this part of them, would be enlarged."""
  width, height = source.width, source.height
  if box:
    height, width = (
      box[1] - box[0],
      round((box[3] - box[2]) * source.pixel_aspect),
    )
    if source.quarter_turns % 2:
      width, height = height, width
  if min(height, width) < resolution:
    raise VideoError(
      'too_small', f'{width}x{height} px is smaller than {resolution} px'
    )


def read(
  path: str,
  indices: Sequence[int],
  alive: Callable[[], None] = lambda: None,
) -> Iterator[av.VideoFrame]:
  """Yields decoded frames by their place in the file, in one pass.

  Args:
    path: of a file that `inspect` accepted.
    indices: strictly increasing.
    alive: called with every frame, also with those that are passed over.

  Raises:
    VideoError: if fewer frames decode than are asked for.
  """
  wanted = iter(indices)
  index = next(wanted, None)
  with _open(path) as (container, stream):
    for number, frame in enumerate(_decode(container, stream)):
      alive()
      if index is None:
        return
      if index == number:
        yield frame
        index = next(wanted, None)
  if index is not None:
    raise VideoError('truncated', f'frame {index} is no longer there')


def fit(
  frame: av.VideoFrame,
  resolution: int,
  pixel_aspect: float = 1.0,
  box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
  """Returns the centre of a frame, uint8 [resolution resolution 3] RGB.

  Args:
    frame: as decoded.
    resolution: height and width that come out, px.
    pixel_aspect: width of a pixel over its height.
    box: (top, bottom, left, right) of the part that counts, in stored px,
      before rotation; None: all of it.
  """
  image = to_rgb(frame)
  if box:
    image = image[box[0] : box[1], box[2] : box[3]]
  height, width = image.shape[:2]
  side = min(height, width * pixel_aspect)  # Of the square, in rows.
  rows, columns = round(side), round(side / pixel_aspect)
  top, left = (height - rows) // 2, (width - columns) // 2
  image = image[top : top + rows, left : left + columns]
  if image.shape[:2] != (resolution, resolution):
    # Area averaging is for shrinking.
    shrinks = max(image.shape[:2]) >= resolution
    image = cv2.resize(
      image,
      (resolution, resolution),
      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
    )
  # Both count anticlockwise; a centred square may be turned after the crop.
  return np.ascontiguousarray(np.rot90(image, _quarter_turns(frame)))


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
  """Returns a whole frame as decoded, uint8 [h w 3] RGB."""
  # A frame's own `to_ndarray` makes a converter, with a thread a processor,
  # that lives as long as the frame; one for all is five times as quick.
  if not hasattr(_local, 'reformatter'):
    _local.reformatter = av.video.reformatter.VideoReformatter()
  rgb = _local.reformatter.reformat(frame, format='rgb24', threads=1)
  return rgb.to_ndarray()


def upright(
  frame: av.VideoFrame,
  pixel_aspect: float = 1.0,
  box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
  """Returns a whole frame, or the part in `box`, as it is shown, RGB."""
  image = to_rgb(frame)
  if box:
    image = image[box[0] : box[1], box[2] : box[3]]
  width = max(1, round(image.shape[1] * pixel_aspect))
  if width != image.shape[1]:
    image = cv2.resize(image, (width, image.shape[0]))
  return np.ascontiguousarray(np.rot90(image, _quarter_turns(frame)))


def file_sha256(path: str) -> str:
  """Returns the hex digest of a file's bytes."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


@contextlib.contextmanager
def _open(path: str, max_pixels: int = 0):
  """Yields (container, video stream); errors within become VideoError."""
  try:
    # 'file:' keeps odd names from being taken for other protocols, and the
    # list keeps playlists from reaching beyond files.
    with av.open(
      f'file:{os.fspath(path)}',
      options={'protocol_whitelist': 'file'},
      metadata_errors='replace',
    ) as container:
      if not container.streams.video:
        raise VideoError('no_video_stream', 'the file has no video stream')
      stream = container.streams.video[0]
      if stream.codec_context is None:
        raise VideoError('undecodable', 'no decoder knows the video stream')
      stream.thread_type = 'NONE'
      # Without it a damaged MPEG-4 file decodes in silence.
      options = {'err_detect': 'explode'}
      context = stream.codec_context
      if max_pixels:
        if context.width * context.height > max_pixels:
          raise VideoError(
            'too_large',
            f'{context.width}x{context.height} px is more than {max_pixels}',
          )
        options['max_pixels'] = str(max_pixels)  # Headers may say less.
      context.options = options
      yield container, stream
  except av.error.FFmpegError as error:
    raise VideoError(
      'undecodable', f'the decoder says: {error.strerror}'
    ) from error


def _decode(container, stream) -> Iterator[av.VideoFrame]:
  for number, frame in enumerate(container.decode(stream)):
    if frame.is_corrupt:
      raise VideoError('undecodable', f'frame {number} is damaged')
    yield frame


def _least_seconds(container, stream) -> float:
  """Returns how long a video must be if its header is right.

  Containers that are written as they come (Matroska) count no frames; what
  else they hold may be longer than the pictures.
  """
  if stream.duration:
    return 0.9 * float(stream.duration * stream.time_base) - 0.5
  share = 0.9 if len(container.streams) == 1 else 0.5
  return share * (container.duration or 0) / av.time_base - 0.5


def _trusted_times(stamps: list) -> np.ndarray | None:
  """Returns seconds from the first frame; None where they cannot be right."""
  if None in stamps:
    return None
  times = np.array([float(stamp - stamps[0]) for stamp in stamps])
  steps = np.diff(times)
  return times if np.all((steps > 0) & (steps < _MAX_HOLE)) else None


def _is_sane(rate) -> bool:
  return bool(rate) and 1 / _MAX_HOLE <= rate <= _MAX_RATE


def _shown_size(frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
  height, width = frame.height, round(frame.width * aspect)
  return (width, height) if _quarter_turns(frame) % 2 else (height, width)


def _quarter_turns(frame: av.VideoFrame) -> int:
  return round(frame.rotation / 90)
