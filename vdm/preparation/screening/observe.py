"""Looks at every decoded frame of a video once, and keeps little of it.

Of each frame a copy of 18 x 32 px stays, for cuts, blank and frozen stretches.
About twice a second a sample is taken: a grey copy of at most 256 px, a
perceptual hash, how bright the rows and columns are at most, and how fast the
picture moves. Samples of a long video are thinned out, so that an hour costs
some 250 MB and not some 50 GB.
"""

import dataclasses

import av
import cv2
import numpy as np

from vdm.preparation import duplicates
from vdm.preparation import shot_detection

_SAMPLES_PER_SECOND = 2.0
_FLOW_SECONDS = 1 / 12  # Between two frames that motion is measured on.
_FLOW_WIDTH = 128  # Px of the copies that motion is measured on.
_GREY_WIDTH = 256  # Px of the samples' copies, on the longer side.
_MAX_GREYS = 256  # Copies kept; beyond, every other one is dropped.
_PLANAR = frozenset(
  f'yuv{j}{ratio}p' for j in ('', 'j') for ratio in (420, 422, 444)
)


@dataclasses.dataclass
class Sample:
  """What is kept of a frame about twice a second.

  Attributes:
    index: of the frame.
    hash: of its picture, see `duplicates.perceptual_hash`.
    motion: mean speed, in frame widths per second; None where unknown.
    until: the later frame that motion was measured on.
    rows: [h] uint8, the brightest luma of each stored row; None: thinned out.
    columns: [w] uint8, likewise.
    grey: uint8 [h w]; None: thinned out.
  """

  index: int
  hash: int
  motion: float | None = None
  until: int = 0
  rows: np.ndarray | None = None
  columns: np.ndarray | None = None
  grey: np.ndarray | None = None


class Observer:
  """Takes the frames of a video, one after the other.

  Attributes:
    samples: in the order of their frames.
  """

  def __init__(self, frame_rate: float):
    """Starts; the rate is nominal, and only spaces the samples."""
    self.samples = []
    self._every = max(2, round(frame_rate / _SAMPLES_PER_SECOND))
    self._gap = min(self._every - 1, max(1, round(frame_rate * _FLOW_SECONDS)))
    self._rate = frame_rate
    self._smalls, self._stacked = [], None
    self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    self._to_planar = av.video.reformatter.VideoReformatter()
    self._before = None
    self._keep_every = 1

  def __len__(self) -> int:
    return len(self._smalls)

  def visit(self, frame: av.VideoFrame):
    """Looks at the next frame."""
    index = len(self._smalls)
    if frame.format.name not in _PLANAR:
      frame = self._to_planar.reformat(frame, format='yuv420p', threads=1)
    planes = [_plane(plane) for plane in frame.planes]
    self._smalls.append(_small(planes))
    if index % self._every == 0:
      self._sample(index, planes[0])
    elif self._before is not None and index % self._every == self._gap:
      after = _flow_copy(planes[0])
      if after.shape == self._before.shape:
        flow = self._flow.calc(self._before, after, None)
        speed = np.hypot(flow[..., 0], flow[..., 1]).mean()
        seconds = self._gap / self._rate
        width = after.shape[1]
        self.samples[-1].motion = float(speed / width / seconds)
        self.samples[-1].until = index

  def smalls(self) -> np.ndarray:
    """Returns small copies of all frames, uint8 [n 18 32 3] RGB.

    Call it when the video has ended.
    """
    if self._stacked is None:
      # Filled one by one, so that they are never there twice.
      shape = (
        len(self._smalls),
        shot_detection.HEIGHT,
        shot_detection.WIDTH,
        3,
      )
      self._stacked = np.empty(shape, np.uint8)
      for i in range(len(self._smalls)):
        self._stacked[i], self._smalls[i] = self._smalls[i], None
    return self._stacked

  def _sample(self, index: int, luma: np.ndarray):
    self._before = _flow_copy(luma)
    sample = Sample(index, duplicates.perceptual_hash(luma))
    number = len(self.samples)
    self.samples.append(sample)
    if number % self._keep_every:
      return
    sample.rows, sample.columns = luma.max(1), luma.max(0)
    scale = min(1.0, _GREY_WIDTH / max(luma.shape))
    size = [max(1, round(side * scale)) for side in luma.shape[::-1]]
    sample.grey = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    if number // self._keep_every >= _MAX_GREYS:
      self._keep_every *= 2
      for other, thinned in enumerate(self.samples):
        if other % self._keep_every:
          thinned.grey = thinned.rows = thinned.columns = None


def _plane(plane) -> np.ndarray:
  """Returns a view of one plane, uint8 [h w]."""
  data = np.frombuffer(plane, np.uint8)
  return data.reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _small(planes: list[np.ndarray]) -> np.ndarray:
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
