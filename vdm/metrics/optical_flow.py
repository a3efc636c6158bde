"""Optical flow of clips: how far each pixel of a frame has gone in the next.

DIS flow (Kroeger et al. 2016, OpenCV's medium preset) on grey frames whose
shorter side is 128 px: on translations of photographs it errs there by 0.03 px
from a quarter of a pixel up to 8 px, where 64 px frames are enlarged first.
Lengths are pixels at that size, so clips of any size can be compared.
"""

import itertools
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 128  # Px: shorter side of the frames that flow is computed on.


class Flow(NamedTuple):
  """The motion of one clip of t frames.

  Attributes:
    grey: uint8 [t h w], the frames that it was computed on.
    forward: float32 [t-1 h w 2], (x, y) from each frame to the next, px.
    backward: float32 [t-1 h w 2], from each next frame back.
    valid: bool [t-1 h w], whether a pixel stays inside the frame and comes back
      to where it started (Sundaram et al. 2010).
  """

  grey: np.ndarray
  forward: np.ndarray
  backward: np.ndarray
  valid: np.ndarray


def grey_frames(video: np.ndarray, side: int = SIDE) -> np.ndarray:
  """Returns uint8 [t h w] grey frames, their shorter side `side` px.

  Args:
    video: uint8 [t h w 3].
    side: enlarged to bicubically, shrunk to by area averaging.
  """
  h, w = video.shape[1:3]
  scale = side / min(h, w)
  size = (max(side, round(w * scale)), max(side, round(h * scale)))
  method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
  frames = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in video]
  if scale != 1:
    frames = [cv2.resize(x, size, interpolation=method) for x in frames]
  return np.stack(frames)


def compute(video: np.ndarray) -> Flow:
  """Returns the flow of a clip uint8 [t h w 3], t at least 2."""
  grey = grey_frames(video)
  method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  forward, backward, valid = [], [], []
  for first, second in itertools.pairwise(grey):
    there = method.calc(first, second, None)
    back = method.calc(second, first, None)
    forward.append(there)
    backward.append(back)
    valid.append(_valid(there, back))
  return Flow(grey, np.stack(forward), np.stack(backward), np.stack(valid))


def follow(field: np.ndarray, flow: np.ndarray) -> np.ndarray:
  """Returns `field` [h w] or [h w c] where `flow` [h w 2] leads each pixel."""
  h, w = flow.shape[:2]
  x = np.arange(w, dtype=np.float32) + flow[..., 0]
  y = np.arange(h, dtype=np.float32)[:, None] + flow[..., 1]
  return cv2.remap(
    field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )


def lengths(flow: np.ndarray) -> np.ndarray:
  """Returns the lengths [...] of vectors [... 2]."""
  return np.hypot(flow[..., 0], flow[..., 1])


def chains(flow: Flow, spacing: int = 8) -> tuple[np.ndarray, np.ndarray]:
  """Follows points of a grid through the clip.

  Args:
    flow: of a clip.
    spacing: of the grid in the first frame, px.

  Returns:
    Velocities [t-1 p 2], px a frame, and bool [t-1 p]: whether a point has
    stayed inside the frame up to then.
  """
  h, w = flow.forward.shape[1:3]
  rows = np.arange(spacing // 2, h, spacing, dtype=np.float32)
  columns = np.arange(spacing // 2, w, spacing, dtype=np.float32)
  x, y = (a.reshape(-1) for a in np.meshgrid(columns, rows))
  inside = np.ones(len(x), bool)
  velocities, kept = [], []
  for step in flow.forward:
    velocity = cv2.remap(
      step, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).reshape(-1, 2)
    x, y = x + velocity[:, 0], y + velocity[:, 1]
    velocities.append(velocity)
    kept.append(inside)
    inside = inside & (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
  return np.stack(velocities), np.stack(kept)


def _valid(there: np.ndarray, back: np.ndarray) -> np.ndarray:
  h, w = there.shape[:2]
  x = np.arange(w) + there[..., 0]
  y = np.arange(h)[:, None] + there[..., 1]
  inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
  home = follow(back, there)
  away = np.square(there + home).sum(-1)
  size = np.square(there).sum(-1) + np.square(home).sum(-1)
  return inside & (away < 0.01 * size + 0.5)
