"""Facts about a video file, from decoding it from end to end.

The order in which frames decode is trusted; `timing` says when they appear, and
`completeness` whether the file has all that it declares.
"""

from collections.abc import Callable
import dataclasses
from fractions import Fraction
import hashlib
import itertools
import os

import av
from etils.array_types import FloatArray, IntArray
import numpy as np

from vdm.common import sizes
from vdm.preparation import color
from vdm.preparation import completeness
from vdm.preparation import decoding
from vdm.preparation import geometry
from vdm.preparation import interlacing
from vdm.preparation import timing

_USUAL_RATE = 25.0  # Where none is stated, for what needs no precision.
_MAX_ASPECT = 8.0  # Of a pixel, either way; a header that states more is wrong.
_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS.


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """Facts about a file that decodes from end to end.

  Attributes:
    height: as displayed, after rotation and pixel aspect, px.
    width: as displayed, px.
    frame_rate: average frames per second, outside pauses.
    rate_from: see `timing.Timing`.
    timing: likewise.
    pauses: likewise.
    num_declared: frames that the header declares; 0: unknown.
    doubt: see `completeness.Completeness`.
    pixel_aspect: width of a pixel over its height, before rotation.
    quarter_turns: anticlockwise, that bring a stored frame upright, after
    mirrored: whether left and right are exchanged.
    matrix: of the colours, see `color.matrix`.
    matrix_from: 'file' | 'assumed'.
    field_order: of interlaced pictures, see `interlacing`; '': they are whole.
    codec: FFmpeg's name of it.
    times: when each frame appears, seconds from the first.
    sha256: hex digest of the file.
  """

  height: int
  width: int
  frame_rate: float
  rate_from: str
  timing: str
  pauses: tuple[int, ...]
  num_declared: int
  doubt: str
  pixel_aspect: float
  quarter_turns: int
  mirrored: bool
  matrix: str
  matrix_from: str
  field_order: str
  codec: str
  times: FloatArray[' n']
  sha256: str

  def unbroken(
    self, start: int = 0, stop: int | None = None
  ) -> list[tuple[int, int]]:
    """Returns the (start, stop) of the runs of frames between pauses."""
    stop = len(self.times) if stop is None else stop
    inside = [place for place in self.pauses if start < place < stop]
    return list(itertools.pairwise([start, *inside, stop]))

  def resample(
    self, frame_rate: float, start: int = 0, stop: int | None = None
  ) -> IntArray[' m']:
    """Returns the frames on display at a constant rate, without pauses."""
    parts = [
      decoding.resample(self.times[a:b] - self.times[a], frame_rate) + a
      for a, b in self.unbroken(start, stop)
    ]
    return np.concatenate(parts)


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
    # A reader of raw streams invents timestamps and a rate.
    is_timed = not container.format.flags & _NO_TIMESTAMPS
    stated = stream.average_rate or stream.guessed_rate
    nominal = _nominal_rate(stream) if is_timed else 0
    nominal = float(nominal or assumed_rate or _USUAL_RATE)
    fields = interlacing.Detector(nominal)
    whole = completeness.Completeness(path, container, stream)
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
      aspect = 1.0
    codec = stream.codec_context.name
    for frame in decoding.decode(container, stream, whole.add):
      if not stamps:
        height, width = geometry.displayed_size(frame, aspect)
        turns = geometry.quarter_turns(frame)
        mirrored = geometry.is_mirrored(frame)
        matrix, matrix_from = color.matrix(frame)
        geometry.to_rgb(frame)  # Raises for an unknown pixel format.
      color.check(frame)
      fields.visit(frame)
      if visit:
        visit(frame, nominal)
      stamps.append(None if frame.pts is None else frame.pts * frame.time_base)
    if stamps:
      whole.check(len(stamps), nominal, is_timed=is_timed)
  if not stamps:
    raise decoding.VideoError('empty', 'no frame can be decoded')
  clock = timing.decide(stamps, stated, assumed_rate, is_timed=is_timed)
  return VideoInfo(
    height=height,
    width=width,
    frame_rate=clock.frame_rate,
    rate_from=clock.rate_from,
    timing=clock.timing,
    pauses=clock.pauses,
    num_declared=whole.num_declared,
    doubt=whole.doubt,
    pixel_aspect=aspect,
    quarter_turns=turns,
    mirrored=mirrored,
    matrix=matrix,
    matrix_from=matrix_from,
    field_order=fields.field_order(),
    codec=codec,
    times=clock.times,
    sha256=file_sha256(path),
  )


def check_size(
  info: VideoInfo, size: sizes.Size, box: geometry.Box | None = None
) -> None:
  """Raises VideoError if frames, or this part of them, would be enlarged.

  Args:
    info: of the file.
    size: height and width that they are to have, px.
    box: part of the frames, in stored px, before rotation; None: all.
  """
  width, height = info.width, info.height
  if box:
    top, bottom, left, right = box
    height, width = bottom - top, round((right - left) * info.pixel_aspect)
    if info.quarter_turns % 2:
      width, height = height, width
  if sizes.magnification((height, width), size) < 1:
    raise decoding.VideoError(
      'too_small',
      f'{width}x{height} px is smaller than {sizes.text(size)} px',
    )


def file_sha256(path: str) -> str:
  """Returns the hex digest of a file's bytes."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _nominal_rate(stream: av.VideoStream) -> Fraction | None:
  """Returns the header's rate; None: it is implausible.

  The average counts pauses, and the ticks of a clock that is finer than the
  frames; the other guess may count fields.
  """
  rates = [stream.average_rate, stream.guessed_rate]
  return min(filter(timing.is_plausible, rates), default=None)
