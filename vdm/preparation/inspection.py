"""Facts about a video file, from decoding it from end to end.

The order in which frames decode is trusted; their timestamps only where they
increase strictly and without gaps, else frame i appears at i / (average rate).
A container without timestamps (a raw stream) states no rate: the caller says
which one to assume.
"""

from collections.abc import Callable
import dataclasses
from fractions import Fraction
import hashlib
import os

import av
from etils.array_types import FloatArray
import numpy as np

from vdm.preparation import decoding
from vdm.preparation import geometry

_MAX_GAP = 5.0  # Seconds between frames beyond which timestamps are wrong.
_USUAL_RATE = 25.0  # Where none is stated, for what needs no precision.
_MAX_RATE = 1000  # Frames per second; a header that states more is wrong.
_MAX_ASPECT = 8.0  # Of a pixel, either way; a header that states more is wrong.
_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS.


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """Facts about a file that decodes from end to end.

  Attributes:
    height: as displayed, after rotation and pixel aspect, px.
    width: as displayed, px.
    frame_rate: average frames per second.
    rate_from: 'timestamps' | 'header' (timestamps are unusable) | 'assumed'.
    pixel_aspect: width of a pixel over its height, before rotation.
    quarter_turns: anticlockwise, that bring a stored frame upright.
    codec: FFmpeg's name of it.
    times: when each frame appears, seconds from the first.
    sha256: hex digest of the file.
  """

  height: int
  width: int
  frame_rate: float
  rate_from: str
  pixel_aspect: float
  quarter_turns: int
  codec: str
  times: FloatArray[' n']
  sha256: str


def inspect(
  path: str,
  *,
  assumed_rate: float = 0.0,
  max_pixels: int = 0,
  visit: Callable[[av.VideoFrame, float], None] | None = None,
) -> VideoInfo:
  """Decodes a whole file without keeping its frames.

  Args:
    path: of the file.
    assumed_rate: frames per second of a stream that states none; 0: such a
      stream is rejected.
    max_pixels: of a frame, beyond which the file is rejected; 0: any number.
    visit: called with every frame, in order, and the nominal frame rate.

  Raises:
    VideoError: if it is damaged or contains no usable video.
  """
  if not os.path.getsize(path):
    raise decoding.VideoError('empty', 'the file has no bytes')
  stamps = []
  with decoding.open_video(path, max_pixels) as (container, stream):
    num_declared = stream.frames
    min_seconds = _declared_seconds(container, stream)
    rate = stream.average_rate or stream.guessed_rate
    # A reader of raw streams invents timestamps and a rate.
    is_timed = not container.format.flags & _NO_TIMESTAMPS
    nominal = rate if is_timed and _is_plausible(rate) else assumed_rate
    nominal = float(nominal or _USUAL_RATE)
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
      aspect = 1.0
    codec = stream.codec_context.name
    for frame in decoding.decode(container, stream):
      if not stamps:
        height, width = geometry.displayed_size(frame, aspect)
        turns = geometry.quarter_turns(frame)
        geometry.to_rgb(frame)  # Raises for an unknown pixel format.
      if visit:
        visit(frame, nominal)
      stamps.append(None if frame.pts is None else frame.pts * frame.time_base)
  if not stamps:
    raise decoding.VideoError('empty', 'no frame can be decoded')
  # Packed B-frames may hide one.
  if len(stamps) < num_declared - 1:
    raise decoding.VideoError(
      'truncated',
      f'the header declares {num_declared} frames and {len(stamps)} decode',
    )
  times, rate, rate_from = _timing(stamps, rate, is_timed, assumed_rate)
  if is_timed and times[-1] + 1 / rate < min_seconds:
    raise decoding.VideoError(
      'truncated',
      f'the header declares {min_seconds:.3g} s or more and {times[-1]:.3g} s'
      ' decode',
    )
  return VideoInfo(
    height=height,
    width=width,
    frame_rate=rate,
    rate_from=rate_from,
    pixel_aspect=aspect,
    quarter_turns=turns,
    codec=codec,
    times=times,
    sha256=file_sha256(path),
  )


def check_size(
  info: VideoInfo, resolution: int, box: geometry.Box | None = None
) -> None:
  """Raises VideoError if frames, or this part of them, would be enlarged.

  Args:
    info: of the file.
    resolution: height and width of the square, px.
    box: part of the frames, in stored px, before rotation; None: all.
  """
  width, height = info.width, info.height
  if box:
    top, bottom, left, right = box
    height, width = bottom - top, round((right - left) * info.pixel_aspect)
    if info.quarter_turns % 2:
      width, height = height, width
  if min(height, width) < resolution:
    raise decoding.VideoError(
      'too_small', f'{width}x{height} px is smaller than {resolution} px'
    )


def file_sha256(path: str) -> str:
  """Returns the hex digest of a file's bytes."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _declared_seconds(
  container: av.container.InputContainer, stream: av.VideoStream
) -> float:
  """Returns how long a video must be if its header is right.

  Containers that are written as a stream (Matroska) count no frames; their
  other streams may be longer than the pictures.
  """
  if stream.duration:
    return 0.9 * float(stream.duration * stream.time_base) - 0.5
  share = 0.9 if len(container.streams) == 1 else 0.5
  return share * (container.duration or 0) / av.time_base - 0.5


def _timing(
  stamps: list[Fraction | None],
  rate: Fraction | None,
  is_timed: bool,
  assumed_rate: float,
) -> tuple[np.ndarray, float, str]:
  """Returns when frames appear, the frame rate, and where it comes from.

  Args:
    stamps: the frames' timestamps, seconds.
    rate: of the header.
    is_timed: whether the container has timestamps and a rate.
    assumed_rate: see `inspect`.
  """
  is_stated = is_timed and _is_plausible(rate)
  times = _trusted_times(stamps) if is_timed else None
  if times is not None:
    if not is_stated:
      rate = (len(stamps) - 1) / times[-1] if times[-1] else assumed_rate or 1.0
    return times, float(rate), 'timestamps'
  if not is_stated:
    if not assumed_rate:
      raise decoding.VideoError(
        'no_frame_rate', f'the file states {rate} frames/s'
      )
    rate = assumed_rate
  rate_from = 'header' if is_stated else 'assumed'
  return np.arange(len(stamps)) / float(rate), float(rate), rate_from


def _trusted_times(stamps: list[Fraction | None]) -> np.ndarray | None:
  """Returns seconds from the first frame; None where they cannot be right."""
  if None in stamps:
    return None
  times = np.array([float(stamp - stamps[0]) for stamp in stamps])
  steps = np.diff(times)
  return times if np.all((steps > 0) & (steps < _MAX_GAP)) else None


def _is_plausible(rate: Fraction | None) -> bool:
  return bool(rate) and 1 / _MAX_GAP <= rate <= _MAX_RATE
