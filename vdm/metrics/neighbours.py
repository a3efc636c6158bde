"""The nearest training clip of each sample: has the model learned by heart?

A clip is described by its pixels, small: up to 8 frames of 16 x 16. Distances
are root mean squares in grey levels, and the search is exact: training clips
come in pieces and only the nearest so far is remembered. What a distance means
is told by held-out clips, which nobody can have learned by heart.
"""

from collections.abc import Iterable

import cv2
import numpy as np

_FRAMES, _SIDE = 8, 16


def describe(videos: np.ndarray) -> np.ndarray:
  """Returns small copies of clips uint8 [n t h w 3], flat: uint8 [n d]."""
  t = videos.shape[1]
  kept = np.unique(np.linspace(0, t - 1, min(t, _FRAMES)).round().astype(int))
  small = [
    [
      cv2.resize(video[i], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
      for i in kept
    ]
    for video in videos
  ]
  return np.asarray(small, np.uint8).reshape(len(videos), -1)


def mirror(videos: np.ndarray) -> np.ndarray:
  """Returns the clips as a model sees them that trains on mirrored ones."""
  return videos[:, :, :, ::-1]


class Nearest:
  """Remembers the nearest of all clips seen for each of some queries.

  Attributes:
    distance: [n] root mean square to the nearest so far, grey levels.
    index: [n] its number in the order in which clips came, -1 for none.
    seen: how many clips came.
  """

  def __init__(self, queries: np.ndarray):
    """Takes the queries' descriptions [n d]."""
    self._queries = queries.astype(np.float32)
    self._squares = np.square(self._queries, dtype=np.float64).sum(1)
    self._least = np.full(len(queries), np.inf)
    self.index = np.full(len(queries), -1)
    self.seen = 0

  @property
  def distance(self) -> np.ndarray:
    return np.sqrt(self._least / self._queries.shape[1])

  def add(self, described: np.ndarray, numbers: Iterable[int] | None = None):
    """Looks at more clips.

    Args:
      described: [m d].
      numbers: of the clips; by default they go on counting.
    """
    numbers = (
      np.arange(self.seen, self.seen + len(described))
      if numbers is None
      else np.asarray(numbers)
    )
    described = described.astype(np.float32)
    squares = np.square(described, dtype=np.float64).sum(1)
    away = squares - 2.0 * (self._queries @ described.T)
    best = away.argmin(1)
    # Once more without the matmul's rounding, which is large for equal clips.
    least = np.square(self._queries - described[best], dtype=np.float64).sum(1)
    nearer = least < self._least
    self._least = np.where(nearer, least, self._least)
    self.index = np.where(nearer, numbers[best], self.index)
    self.seen = max(self.seen, int(numbers.max()) + 1)


def summarise(samples: Nearest, held_out: Nearest) -> dict[str, float]:
  """Returns how near samples are to training clips, beside held-out clips.

  Returns:
    'clips', looked at; 'median' and 'least' distance of the samples and
    'held_out_median' and 'held_out_least', grey levels; 'copies', share of the
    samples that are nearer to a training clip than any but one in a hundred of
    the held-out clips is (0.01 by chance).
  """
  limit = np.quantile(held_out.distance, 0.01)
  return {
    'clips': samples.seen,
    'median': float(np.median(samples.distance)),
    'least': float(samples.distance.min()),
    'held_out_median': float(np.median(held_out.distance)),
    'held_out_least': float(held_out.distance.min()),
    'copies': float((samples.distance < limit).mean()),
  }
