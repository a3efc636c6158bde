"""Whether a file holds all that its header declares.

Headers count frames that nobody is meant to see or that are not stored: what
an edit list hides, and the empty chunks by which AVI repeats a picture. The
index of a QuickTime or MPEG-4 file says what is shown, that of an AVI what is
empty. The duration of a file is that of its longest stream, often the sound.
"""

import os
import struct
from typing import Any

import av

from vdm.preparation import decoding

_SHARE = 0.9  # Of the declared duration, that must be there,
_FRAMES = 3  # but for the last frames, whose durations may be unknown.
_NVOP_BYTES = 19  # At most, of an MPEG-4 picture that repeats the last one.


class Completeness:
  """What a header declares, compared with what is read.

  Attributes:
    num_declared: frames that the header declares and an edit list does not
      hide; 0: unknown.
    doubt: why the content may be wrong although it decodes; '' if it is not.
  """

  def __init__(
    self,
    path: str,
    container: av.container.InputContainer,
    stream: av.VideoStream,
  ):
    """Reads what the header declares, before anything else is read.

    Raises:
      VideoError: if the file is shorter than its header says.
    """
    self.doubt = ''
    self._format = container.format.name
    self._codec = stream.codec_context.name
    self.num_declared = stream.frames
    self._video = stream
    self._num_repeats = 0
    if self._format == 'avi':
      self._num_repeats = _num_empty_chunks(path, stream.index)
    self._own_seconds = _own_seconds(container, stream)
    self._all_seconds = (container.duration or 0) / av.time_base
    self._starts, self._ends = {}, {}
    if self._format.startswith('matroska'):
      missing = _segment_end(path) - os.path.getsize(path)
      if missing > 0:
        raise decoding.VideoError(
          'truncated', f'the file ends {missing} bytes before its header says'
        )

  def add(self, packet: av.Packet, num_frames: int) -> None:
    """Notes a packet of any stream, and how many frames it decoded to."""
    if packet.is_discard:
      return
    index = packet.stream_index
    if (
      index == self._video.index
      and self._codec == 'mpeg4'
      and not num_frames
      and 0 < packet.size <= _NVOP_BYTES
    ):
      self._num_repeats += 1
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is not None:
      start = float(stamp * packet.time_base)
      end = start + float((packet.duration or 0) * packet.time_base)
      self._starts[index] = min(start, self._starts.get(index, start))
      self._ends[index] = max(end, self._ends.get(index, end))

  def check(
    self, num_frames: int, frame_rate: float, *, is_timed: bool
  ) -> None:
    """Compares, after the last packet.

    Args:
      num_frames: that decoded.
      frame_rate: of the header.
      is_timed: whether the container has timestamps.

    Raises:
      VideoError: if something is missing.
    """
    if self._format.startswith('mov') and self.num_declared:
      # Only now: an index in fragments is read with them.
      entries = self._video.index_entries
      self.num_declared = sum(not entry.is_discard for entry in entries)
    # Packed B-frames, an invention of DivX for AVI, may hide one.
    packed = self._codec == 'mpeg4' and self._format == 'avi'
    counts = (
      f'the header declares {self.num_declared} frames and {num_frames} decode'
    )
    if num_frames + self._num_repeats + packed < self.num_declared:
      raise decoding.VideoError('truncated', counts)
    if 0 < self.num_declared < num_frames:
      self.doubt = counts
    if is_timed and not self.num_declared:
      self._check_seconds(frame_rate)

  def _check_seconds(self, frame_rate: float) -> None:
    starts, ends, index = self._starts, self._ends, self._video.index
    if self._format.startswith('matroska'):
      starts = dict.fromkeys(starts, 0.0)  # It counts from 0, not the first.
    own = ends.get(index, 0.0) - starts.get(index, 0.0)
    whole = max(ends.values(), default=0) - min(starts.values(), default=0)
    declared, there = self._all_seconds, whole
    if self._own_seconds:
      declared, there = self._own_seconds, own
    seconds = f'the header declares {declared:.3g} s and {there:.3g} s decode'
    if there < _SHARE * declared - _FRAMES / frame_rate:
      raise decoding.VideoError('truncated', seconds)
    if self._own_seconds and declared < _SHARE * there - _FRAMES / frame_rate:
      self.doubt = self.doubt or seconds


def _own_seconds(
  container: av.container.InputContainer, stream: av.VideoStream
) -> float:
  """Returns the declared duration of the video stream itself; 0: unknown."""
  if stream.duration:
    return float(stream.duration * stream.time_base)
  if not container.format.name.startswith('matroska'):
    return 0.0
  try:
    hours, minutes, seconds = stream.metadata['DURATION'].split(':')
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
  except (KeyError, ValueError):
    return 0.0


def _num_empty_chunks(path: str, stream_index: int) -> int:
  """Returns how many chunks of a stream an AVI's index lists as empty."""
  with open(path, 'rb') as file:
    file.seek(12)  # 'RIFF', its size, 'AVI '; then chunks.
    while len(head := file.read(8)) == 8:
      name, size = struct.unpack('<4sI', head)
      if name == b'idx1':
        data = file.read(size)
        return sum(
          not length and int(owner) == stream_index
          for owner, length in struct.iter_unpack(
            '<2s2x8xI', data[: len(data) // 16 * 16]
          )
          if owner.isdigit()
        )
      file.seek(size + size % 2, os.SEEK_CUR)
  return 0


def _segment_end(path: str) -> int:
  """Returns where the segment of a Matroska file ends; 0: unknown.

  Every element is an id, a size and that many bytes; the first bits of id and
  size say how many bytes they have (RFC 8794).
  """
  with open(path, 'rb') as file:
    head = file.read(4096)
  place = 0
  while place < len(head):
    identity, place = _number(head, place, keep_marker=True)
    size, place = _number(head, place)
    if identity is None or size is None:
      return 0
    if identity == 0x18538067:
      return place + size
    place += size
  return 0


def _number(
  data: bytes, place: int, keep_marker: bool = False
) -> tuple[Any, int]:
  """Returns a number of variable length, None if unknown, and its end."""
  if place >= len(data) or not data[place]:
    return None, place
  length = 9 - data[place].bit_length()
  value = int.from_bytes(data[place : place + length], 'big')
  if keep_marker:
    return value, place + length
  value -= 1 << 7 * length
  unknown = (1 << 7 * length) - 1
  return (None if value == unknown else value), place + length
