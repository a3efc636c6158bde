"""Decodes videos frame by frame, strictly and in order.

A file is read from its first frame to its last, by PyAV in one thread, and any
damage that the decoder notices rejects it. Seeking is never used: it gives
wrong frames on genuine files of UCF101.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import os

import av
from etils.array_types import FloatArray, IntArray
import numpy as np

from vdm.preparation import interlacing

# Of files that are videos by their names.
VIDEO_SUFFIXES = frozenset(
  (
    '.264 .265 .3g2 .3gp .amv .apng .asf .avi .divx .dv .f4v .flv .gif .h264'
    ' .h265 .hevc .ivf .m1v .m2t .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4'
    ' .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm'
    ' .wmv .y4m'
  ).split()
)


class VideoError(ValueError):
  """A file cannot be used.

  Attributes:
    reason: undecodable | no_video_stream | truncated | empty | too_small |
      too_large | no_frame_rate | high_dynamic_range.
  """

  def __init__(self, reason: str, message: str):
    super().__init__(message)
    self.reason = reason


@contextlib.contextmanager
def open_video(
  path: str, max_pixels: int = 0
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
  """Yields the container and its first video stream.

  Args:
    path: of the file.
    max_pixels: of a frame, beyond which the file is rejected; 0: any number.

  Raises:
    VideoError: if there is no usable stream, and in place of FFmpeg's errors
      in the body.
  """
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
      # Without it a damaged MPEG-4 file decodes without an error.
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


def decode(
  container: av.container.InputContainer,
  stream: av.VideoStream,
  note: Callable[[av.Packet, int], None] | None = None,
) -> Iterator[av.VideoFrame]:
  """Yields all frames in the order in which they decode.

  Args:
    container: of the stream.
    stream: to decode.
    note: called with every packet, also those of other streams, and how many
      frames it decoded to.

  Raises:
    VideoError: at the first damaged frame.
  """
  number = 0
  packets = container.demux() if note else container.demux(stream)
  for packet in packets:
    is_own = packet.stream_index == stream.index
    frames = packet.decode() if is_own else ()
    if note:
      note(packet, len(frames))
    for frame in frames:
      if frame.is_corrupt:
        raise VideoError('undecodable', f'frame {number} is damaged')
      number += 1
      yield frame


def read(
  path: str,
  indices: Sequence[int],
  heartbeat: Callable[[], None] = lambda: None,
  *,
  field_order: str = '',
) -> Iterator[av.VideoFrame]:
  """Yields the decoded frames at these positions in the file, in one pass.

  Args:
    path: of a file that `inspection.inspect` accepted.
    indices: strictly increasing.
    heartbeat: called at every frame, also at those that are skipped.
    field_order: of frames that are deinterlaced, see `interlacing`; '': none.

  Raises:
    VideoError: if fewer frames decode than are asked for.
  """
  with open_video(path) as (container, stream):
    frames = decode(container, stream)
    yield from choose(frames, indices, heartbeat, field_order=field_order)


def choose(
  frames: Iterable[av.VideoFrame],
  indices: Sequence[int],
  heartbeat: Callable[[], None],
  *,
  field_order: str = '',
) -> Iterator[av.VideoFrame]:
  """Yields the frames at these positions; see `read`."""
  if field_order:
    frames = interlacing.deinterlaced(frames, field_order)
  wanted = iter(indices)
  index = next(wanted, None)
  for number, frame in enumerate(frames):
    heartbeat()
    if index is None:
      return
    if index == number:
      yield frame
      index = next(wanted, None)
  if index is not None:
    raise VideoError('truncated', f'frame {index} is no longer there')


def resample(times: FloatArray[' n'], frame_rate: float) -> IntArray[' m']:
  """Returns the indices of the frames on display at a constant rate.

  Args:
    times: when each frame appears, seconds, strictly increasing from 0.
    frame_rate: of the result. The frame on display at each tick is taken:
      slower sources repeat frames, faster ones drop some.

  Returns:
    Indices, not decreasing.
  """
  ticks = np.arange(0.0, times[-1] + 1e-9, 1.0 / frame_rate)
  # Containers that count milliseconds shift frames by up to one.
  return np.searchsorted(times, ticks + 1e-3, side='right') - 1
