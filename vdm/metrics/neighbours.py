"""Memorisation: the nearest training clip of each sample.

Clips are compared by thumbnails, up to 8 frames of 16 x 16 px, and distances
are root mean squares in grey levels. The search is exact: training clips come
in batches, and only the nearest so far is stored. Held-out clips, which cannot
be memorised, give the distances to compare with.
"""

import cv2
from etils.array_types import FloatArray, IntArray, ui8
import numpy as np

_FRAMES, _SIDE = 8, 16


def thumbnails(videos: ui8['n t h w 3']) -> ui8['n d']:
  """Returns flattened thumbnails of clips."""
  t = videos.shape[1]
  frames = np.unique(np.linspace(0, t - 1, min(t, _FRAMES)).round().astype(int))
  small = [
    [
      cv2.resize(video[i], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
      for i in frames
    ]
    for video in videos
  ]
  return np.asarray(small, np.uint8).reshape(len(videos), -1)


def mirror(videos: ui8['n t h w 3']) -> ui8['n t h w 3']:
  """Returns the clips flipped horizontally, as augmentation flips them."""
  return videos[:, :, :, ::-1]


class Nearest:
  """The nearest of all clips added so far, for each of n queries.

  Attributes:
    index: [n] number of the nearest clip, -1 for none.
    seen: number of clips added.
  """

  def __init__(self, queries: ui8['n d']):
    """Takes the thumbnails of the queries."""
    self._queries = queries.astype(np.float32)
    self._squared = np.full(len(queries), np.inf)
    self.index = np.full(len(queries), -1)
    self.seen = 0

  @property
  def distance(self) -> FloatArray[' n']:
    """Root mean square distance to the nearest clip, grey levels."""
    return np.sqrt(self._squared / self._queries.shape[1])

  def add(self, clips: ui8['m d'], numbers: IntArray[' m']) -> None:
    """Compares more clips with the queries.

    Args:
      clips: their thumbnails.
      numbers: of the clips; a mirrored clip has the number of its original.
    """
    clips = clips.astype(np.float32)
    norms = np.square(clips, dtype=np.float64).sum(1)
    # Up to the norms of the queries, which do not change the order.
    best = (norms - 2.0 * (self._queries @ clips.T)).argmin(1)
    # Again without the rounding of the product, which is large for equal clips.
    squared = np.square(self._queries - clips[best], dtype=np.float64).sum(1)
    nearer = squared < self._squared
    self._squared = np.where(nearer, squared, self._squared)
    self.index = np.where(nearer, numbers[best], self.index)
    self.seen = max(self.seen, int(numbers.max()) + 1)


def summarise(samples: Nearest, held_out: Nearest) -> dict[str, float]:
  """Compares how near samples and held-out clips are to training clips.

  Returns:
    'clips', the number of training clips; 'median' and 'least', distances of
    the samples, and 'held_out_median' and 'held_out_least', of the held-out
    clips, grey levels; 'copies', the share of samples that are nearer to a
    training clip than the nearest hundredth of the held-out clips (0.01 by
    chance).
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
