"""Numbers that a clip is described by: its frame rate, and how much moves.

Stable Video Diffusion (Blattmann et al., 2311.15127) tells its network both, so
that they can be chosen when a video is made.

Worker processes import this module: neither jax nor TensorFlow here.
"""

from collections.abc import Sequence

import cv2
from etils.array_types import ui8
import numpy as np

_SIDE = 32  # Px: shorter side of the copies that motion is measured on.
_FLAT = 0.1  # Grey levels a px: a frame of lower mean gradient shows nothing.


def motion(video: ui8['t h w 3'], frame_rate: float) -> float:
  """Returns the mean speed of what has edges, in frame widths a second.

  Where the brightness of what moves is constant, its change over time is its
  gradient times the speed across the edge (normal flow, Horn and Schunck 1981),
  which is 2 / pi of the speed in the mean over directions. So the speed is

    pi / 2  mean |change| / mean |gradient|

  in copies small enough for the steps to be small. It is 0 in a still clip,
  whatever it shows, and does not depend on contrast. Steps of more than a tenth
  of the frame are underestimated.

  Args:
    video: a clip of two frames or more.
    frame_rate: of its frames.
  """
  h, w = video.shape[1:3]
  scale = min(1.0, _SIDE / min(h, w))
  size = (round(w * scale), round(h * scale))
  grey = np.stack(
    [
      cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32),
        size,
        interpolation=cv2.INTER_AREA,
      )
      for image in video
    ]
  )
  change = float(np.abs(np.diff(grey, axis=0)).mean())
  # Of the mean of two frames, between which the change is.
  middle = (grey[1:] + grey[:-1]) / 2
  down, right = np.gradient(middle, axis=(1, 2))
  gradient = float(np.hypot(down, right).mean())
  speed = np.pi / 2 * change / max(gradient, _FLAT)  # Px a frame.
  return speed / size[0] * frame_rate


def describe(
  names: Sequence[str],
  video: ui8['t h w 3'] | None,
  frame_rate: float,
) -> dict[str, np.float32]:
  """Returns the numbers that are asked for.

  Args:
    names: 'frame_rate', frames a second, and 'motion'.
    video: the clip, for 'motion'.
    frame_rate: of its frames.
  """
  found = {}
  if 'frame_rate' in names:
    found['frame_rate'] = np.float32(frame_rate)
  if 'motion' in names:
    found['motion'] = np.float32(motion(video, frame_rate))
  return found
