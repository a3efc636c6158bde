"""Spoils clips in known ways: what a measure must see, and what is the worst.

Everything takes and gives uint8 [n t h w 3] and depends on the seed alone.
"""

import cv2
import numpy as np


def shuffle_frames(videos: np.ndarray, seed: int = 0) -> np.ndarray:
  """Returns the clips, each with its frames in an order of its own."""
  random = np.random.default_rng(seed)
  orders = [random.permutation(videos.shape[1]) for _ in videos]
  return np.stack(
    [video[order] for video, order in zip(videos, orders, strict=True)]
  )


def mix_clips(videos: np.ndarray, seed: int = 0) -> np.ndarray:
  """Returns clips whose frames come from different clips, at their time.

  Every frame is used once; with as many clips as frames or more, no two frames
  of a mixed clip are from the same one.
  """
  random = np.random.default_rng(seed)
  n, t = videos.shape[:2]
  order = random.permutation(n)
  # Rows of a cyclic square: clip i takes frame f from clip order[i + shift_f].
  shifts = np.concatenate([random.permutation(n) for _ in range(-(-t // n))])
  source = order[(np.arange(n)[:, None] + shifts[None, :t]) % n]
  return videos[source, np.arange(t)[None]]


def freeze(videos: np.ndarray) -> np.ndarray:
  """Returns clips that stand still at their middle frame."""
  t = videos.shape[1]
  return np.repeat(videos[:, t // 2 : t // 2 + 1], t, axis=1)


def swap_pairs(videos: np.ndarray) -> np.ndarray:
  """Returns the clips with frames 0 and 1, 2 and 3, ... exchanged."""
  order = np.arange(videos.shape[1])
  even = len(order) // 2 * 2
  order[:even] ^= 1
  return videos[:, order]


def repeat_frames(videos: np.ndarray) -> np.ndarray:
  """Returns the clips with every second frame a copy of the one before."""
  return videos[:, np.arange(videos.shape[1]) // 2 * 2]


def jitter_luma(
  videos: np.ndarray, seed: int = 0, share: float = 0.06
) -> np.ndarray:
  """Returns the clips, each frame's brightness times 1 + N(0, share^2)."""
  random = np.random.default_rng(seed)
  gain = 1 + share * random.standard_normal((*videos.shape[:2], 1, 1, 1))
  return _round(videos * gain.astype(np.float32))


def add_noise(
  videos: np.ndarray, seed: int = 0, level: float = 5.0
) -> np.ndarray:
  """Returns the clips with new noise in every pixel, `level` grey levels."""
  random = np.random.default_rng(seed)
  noise = random.standard_normal(videos.shape, dtype=np.float32)
  return _round(videos + level * noise)


def jitter_elastic(
  videos: np.ndarray, seed: int = 0, px: float = 1.5
) -> np.ndarray:
  """Returns the clips, each frame bent anew by `px` pixels, smoothly.

  Displacements are drawn on a grid of 5 x 5 and are `px` in the root mean
  square along each axis where they are drawn.
  """
  random = np.random.default_rng(seed)
  n, t, h, w, _ = videos.shape
  columns, rows = np.arange(w, dtype='f'), np.arange(h, dtype='f')[:, None]
  bent = np.empty_like(videos)
  for i in range(n):
    for j in range(t):
      grid = px * random.standard_normal((5, 5, 2)).astype(np.float32)
      away = cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
      bent[i, j] = cv2.remap(
        videos[i, j],
        columns + away[..., 0],
        rows + away[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
      )
  return bent


def drift_hue(videos: np.ndarray, degrees: float = 120.0) -> np.ndarray:
  """Returns the clips, their hues turning by `degrees` up to the end."""
  turned = np.empty_like(videos)
  t = videos.shape[1]
  for j in range(t):
    turn = degrees * j / max(t - 1, 1)
    for i in range(len(videos)):
      hsv = cv2.cvtColor(
        videos[i, j].astype(np.float32) / 255, cv2.COLOR_RGB2HSV
      )
      hsv[..., 0] = (hsv[..., 0] + turn) % 360
      turned[i, j] = _round(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)
  return turned


def cut(videos: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns the clips, from their middle on the other clips instead."""
  middle = videos.shape[1] // 2
  return np.concatenate([videos[:, :middle], others[:, middle:]], axis=1)


def cross_fade(videos: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns the clips, turning evenly into the others from first to last."""
  share = np.linspace(0, 1, videos.shape[1], dtype='f')[:, None, None, None]
  return _round(videos * (1 - share) + others * share)


def every(
  videos: np.ndarray, others: np.ndarray, seed: int = 0
) -> dict[str, np.ndarray]:
  """Returns {name: the clips spoiled in one way}; see above.

  Args:
    videos: the clips.
    others: as many from other videos, to cut and fade to.
    seed: of what is drawn.
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
