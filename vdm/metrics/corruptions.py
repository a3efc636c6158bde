"""Corrupts clips in known ways, as references of what a failure looks like.

Every function takes and returns uint8 [n t h w 3]; the same seed gives the same
clips.
"""

import cv2
from etils.array_types import ui8
import numpy as np


def shuffle_frames(videos: ui8['n t h w 3'], seed: int = 0) -> ui8['n t h w 3']:
  """Returns the clips with the frames of each in a random order."""
  random = np.random.default_rng(seed)
  orders = [random.permutation(videos.shape[1]) for _ in videos]
  return np.stack(
    [video[order] for video, order in zip(videos, orders, strict=True)]
  )


def mix_clips(videos: ui8['n t h w 3'], seed: int = 0) -> ui8['n t h w 3']:
  """Returns clips whose frames come from different clips, at the same time.

  Every frame is used once. With at least as many clips as frames, no two frames
  of a mixed clip come from the same clip.
  """
  random = np.random.default_rng(seed)
  n, t = videos.shape[:2]
  order = random.permutation(n)
  # A cyclic Latin square: clip i takes frame f from clip order[i + shift_f].
  shifts = np.concatenate([random.permutation(n) for _ in range(-(-t // n))])
  source = order[(np.arange(n)[:, None] + shifts[None, :t]) % n]
  return videos[source, np.arange(t)[None]]


def freeze(videos: ui8['n t h w 3']) -> ui8['n t h w 3']:
  """Returns clips of the middle frame, repeated."""
  t = videos.shape[1]
  return np.repeat(videos[:, t // 2 : t // 2 + 1], t, axis=1)


def swap_pairs(videos: ui8['n t h w 3']) -> ui8['n t h w 3']:
  """Returns the clips with frames 0 and 1, 2 and 3, ... exchanged."""
  order = np.arange(videos.shape[1])
  even = len(order) // 2 * 2
  order[:even] ^= 1
  return videos[:, order]


def repeat_frames(videos: ui8['n t h w 3']) -> ui8['n t h w 3']:
  """Returns the clips with every second frame a copy of the previous one."""
  return videos[:, np.arange(videos.shape[1]) // 2 * 2]


def jitter_luma(
  videos: ui8['n t h w 3'], seed: int = 0, share: float = 0.06
) -> ui8['n t h w 3']:
  """Returns the clips with each frame multiplied by 1 + N(0, share^2)."""
  random = np.random.default_rng(seed)
  gain = 1 + share * random.standard_normal((*videos.shape[:2], 1, 1, 1))
  return _round(videos * gain.astype(np.float32))


def add_noise(
  videos: ui8['n t h w 3'], seed: int = 0, level: float = 5.0
) -> ui8['n t h w 3']:
  """Returns the clips with white noise of deviation `level`, grey levels."""
  random = np.random.default_rng(seed)
  noise = random.standard_normal(videos.shape, dtype=np.float32)
  return _round(videos + level * noise)


def jitter_elastic(
  videos: ui8['n t h w 3'], seed: int = 0, px: float = 1.5
) -> ui8['n t h w 3']:
  """Returns the clips with a random smooth distortion of each frame.

  Displacements are drawn on a grid of 5 x 5 with a deviation of `px` pixels
  along each axis, and interpolated.
  """
  random = np.random.default_rng(seed)
  n, t, h, w, _ = videos.shape
  columns, rows = np.arange(w, dtype='f'), np.arange(h, dtype='f')[:, None]
  distorted = np.empty_like(videos)
  for i in range(n):
    for j in range(t):
      grid = px * random.standard_normal((5, 5, 2)).astype(np.float32)
      offset = cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
      distorted[i, j] = cv2.remap(
        videos[i, j],
        columns + offset[..., 0],
        rows + offset[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
      )
  return distorted


def drift_hue(
  videos: ui8['n t h w 3'], degrees: float = 120.0
) -> ui8['n t h w 3']:
  """Returns the clips with hues that rotate by `degrees` up to the end."""
  rotated = np.empty_like(videos)
  t = videos.shape[1]
  for j in range(t):
    angle = degrees * j / max(t - 1, 1)
    for i in range(len(videos)):
      hsv = cv2.cvtColor(
        videos[i, j].astype(np.float32) / 255, cv2.COLOR_RGB2HSV
      )
      hsv[..., 0] = (hsv[..., 0] + angle) % 360
      rotated[i, j] = _round(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)
  return rotated


def cut(videos: ui8['n t h w 3'], others: ui8['n t h w 3']) -> ui8['n t h w 3']:
  """Returns the clips, continued by the other clips from the middle on."""
  middle = videos.shape[1] // 2
  return np.concatenate([videos[:, :middle], others[:, middle:]], axis=1)


def cross_fade(
  videos: ui8['n t h w 3'], others: ui8['n t h w 3']
) -> ui8['n t h w 3']:
  """Returns a linear cross-fade from the clips to the others."""
  share = np.linspace(0, 1, videos.shape[1], dtype='f')[:, None, None, None]
  return _round(videos * (1 - share) + others * share)


def every(
  videos: ui8['n t h w 3'], others: ui8['n t h w 3'], seed: int = 0
) -> dict[str, ui8['n t h w 3']]:
  """Returns {name: the clips with that corruption}.

  Args:
    videos: the clips.
    others: as many clips of other videos, to cut and fade to.
    seed: of the random corruptions.
  """
  return {
    'shuffled': shuffle_frames(videos, seed),
    'swapped pairs': swap_pairs(videos),
    'repeated frames': repeat_frames(videos),
    'frozen': freeze(videos),
    'luma jitter': jitter_luma(videos, seed),
    'noise': add_noise(videos, seed),
    'elastic jitter': jitter_elastic(videos, seed),
    'cut': cut(videos, others),
    'hue drift': drift_hue(videos),
    'cross-fade': cross_fade(videos, others),
  }


def _round(values: np.ndarray) -> np.ndarray:
  return np.rint(values).clip(0, 255).astype(np.uint8)
