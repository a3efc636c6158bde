"""Measures every decoded frame of a video once, and stores little of it.

Of each frame a thumbnail of 18 x 32 px is stored, for cuts, blank and frozen
segments. About twice a second a sample is taken: a grey copy of at most 256
px, a perceptual hash, the brightest luma of rows and columns, and how fast the
picture moves. Samples of a long video are thinned out, so that an hour takes
some 250 MB and not some 50 GB.
"""

import dataclasses

import av
import cv2
from etils.array_types import ui8
import numpy as np

from vdm.preparation import duplicates
from vdm.preparation import shot_detection

_SAMPLES_PER_SECOND = 2.0
_FLOW_SECONDS = 1 / 12  # Between two frames that motion is measured on.
_FLOW_WIDTH = 128  # Px of the copies that motion is measured on.
_GREY_SIZE = 256  # Px of the samples' copies, on the longer side.
_MAX_GREYS = 256  # Copies stored; beyond, every other one is dropped.
_PLANAR = frozenset(
  f'yuv{j}{ratio}p' for j in ('', 'j') for ratio in (420, 422, 444)
)


@dataclasses.dataclass
class Sample:
  """Measurements of a frame, taken about twice a second.

  Attributes:
    index: of the frame.
    hash: see `duplicates.perceptual_hash`.
    motion: mean speed, in frame widths per second; None where unknown.
    until: the later frame that motion is measured on.
    rows: the brightest luma of each stored row; None: thinned out.
    columns: likewise.
    grey: a small copy; None: thinned out.
  """

  index: int
  hash: int
  motion: float | None = None
  until: int = 0
  rows: ui8[' h'] | None = None
  columns: ui8[' w'] | None = None
  grey: ui8['h w'] | None = None


class Observer:
  """Measures the frames of a video, one after the other.

  Attributes:
    samples: in the order of their frames.
  """

  def __init__(self, frame_rate: float):
    """Initialises; the rate is nominal, and only spaces the samples."""
    self.samples: list[Sample] = []
    self._every = max(2, round(frame_rate / _SAMPLES_PER_SECOND))
    self._gap = min(self._every - 1, max(1, round(frame_rate * _FLOW_SECONDS)))
    self._rate = frame_rate
    self._thumbnails, self._stacked = [], None
    self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    self._to_planar = av.video.reformatter.VideoReformatter()
    self._flow_from = None
    self._grey_every = 1

  def visit(self, frame: av.VideoFrame) -> None:
    """Measures the next frame."""
    index = len(self._thumbnails)
    if frame.format.name not in _PLANAR:
      frame = self._to_planar.reformat(frame, format='yuv420p', threads=1)
    planes = [_plane(plane) for plane in frame.planes]
    self._thumbnails.append(_thumbnail(planes))
    if index % self._every == 0:
      self._add_sample(index, planes[0])
    elif index % self._every == self._gap:
      after = _flow_copy(planes[0])
      if after.shape == self._flow_from.shape:
        flow = self._flow.calc(self._flow_from, after, None)
        speed = np.hypot(flow[..., 0], flow[..., 1]).mean()
        seconds = self._gap / self._rate
        width = after.shape[1]
        self.samples[-1].motion = float(speed / width / seconds)
        self.samples[-1].until = index

  def thumbnails(self) -> ui8['n 18 32 3']:
    """Returns the RGB thumbnails of all frames, after the last one."""
    if self._stacked is None:
      # Moved one by one, so that they are never in memory twice.
      size = (shot_detection.HEIGHT, shot_detection.WIDTH, 3)
      self._stacked = np.empty((len(self._thumbnails), *size), np.uint8)
      for i, thumbnail in enumerate(self._thumbnails):
        self._stacked[i], self._thumbnails[i] = thumbnail, None
    return self._stacked

  def _add_sample(self, index: int, luma: np.ndarray):
    self._flow_from = _flow_copy(luma)
    sample = Sample(index, duplicates.perceptual_hash(luma))
    number = len(self.samples)
    self.samples.append(sample)
    if number % self._grey_every:
      return
    sample.rows, sample.columns = luma.max(1), luma.max(0)
    scale = min(1.0, _GREY_SIZE / max(luma.shape))
    size = [max(1, round(side * scale)) for side in luma.shape[::-1]]
    sample.grey = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    if number // self._grey_every >= _MAX_GREYS:
      self._grey_every *= 2
      for other, thinned in enumerate(self.samples):
        if other % self._grey_every:
          thinned.grey = thinned.rows = thinned.columns = None


def _plane(plane: av.video.plane.VideoPlane) -> ui8['h w']:
  """Returns a view of one plane."""
  data = np.frombuffer(plane, np.uint8)
  return data.reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _thumbnail(planes: list[np.ndarray]) -> ui8['18 32 3']:
  size = (shot_detection.WIDTH, shot_detection.HEIGHT)
  yuv = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in planes]
  # OpenCV has Cr before Cb.
  merged = cv2.merge([yuv[0], yuv[2], yuv[1]])
  return cv2.cvtColor(merged, cv2.COLOR_YCrCb2RGB)


def _flow_copy(luma: np.ndarray) -> np.ndarray:
  height, width = luma.shape
  if width > _FLOW_WIDTH:
    height, width = max(16, round(height * _FLOW_WIDTH / width)), _FLOW_WIDTH
  # The flow is searched in patches, for which a picture must have room.
  size = (max(32, width), max(32, height))
  return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
