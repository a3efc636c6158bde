"""The offline suite: sets of clips against real ones, with no weights at all.

  measured = {name: suite.measure(videos) for name, videos in sets.items()}
  rows = suite.compare(measured['real'], measured)

`compare` answers two questions. How far is a set of clips from the real one, as
a distribution of vectors: the energy distance on each of `descriptors.NAMES`
and on the panel of `motion.py`, all its measures together. And in which of the
panel's measures: the set's median beside the real one, the Wasserstein distance
between the two distributions in the measure's own unit, with the real spread to
read it by, and how well the measure alone tells the sets apart.
"""

from collections.abc import Callable
from concurrent import futures
import os
from typing import NamedTuple

import cv2
import numpy as np

from vdm.metrics import descriptors
from vdm.metrics import distances
from vdm.metrics import motion
from vdm.metrics import optical_flow

# What sets are compared by; the panel is all of its measures together.
SUMMARY = (*descriptors.NAMES, 'panel')


VERSION = 1  # Raise it when the same clips give other numbers.


class Measured(NamedTuple):
  """What is known of n clips.

  Attributes:
    panel: {measure of `motion.PANEL`: [n]}.
    vectors: {name of `descriptors.NAMES`: [n d]}.
  """

  panel: dict[str, np.ndarray]
  vectors: dict[str, np.ndarray]


def measure(
  videos: np.ndarray,
  *,
  threads: int | None = None,
  progress: Callable[[int], None] | None = None,
) -> Measured:
  """Measures each clip by itself, several at a time.

  Args:
    videos: uint8 [n t h w 3], t at least 3.
    threads: that work at once; by default one a core.
    progress: called with the number of clips done after each of them.

  Raises:
    ValueError: they are no such clips.
  """
  check(videos)
  clips, before = [], cv2.getNumThreads()
  cv2.setNumThreads(1)  # Clips share the cores, not the rows of a frame.
  try:
    with futures.ThreadPoolExecutor(threads or os.cpu_count()) as pool:
      for clip in pool.map(_measure, videos):
        clips.append(clip)
        if progress is not None:
          progress(len(clips))
  finally:
    cv2.setNumThreads(before)
  return Measured(
    {k: np.array([clip[0][k] for clip in clips]) for k in motion.PANEL},
    {k: np.stack([clip[1][k] for clip in clips]) for k in descriptors.NAMES},
  )


def check(videos: np.ndarray):
  """Raises ValueError unless videos are uint8 [n t h w 3] that can move."""
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      'The suite takes uint8 clips [n t h w 3], not '
      f'{videos.dtype} {videos.shape}.'
    )
  if videos.shape[1] < motion.LEAST_FRAMES:
    raise ValueError(
      f'Clips of {videos.shape[1]} frames have no motion to measure: give '
      f'{motion.LEAST_FRAMES} frames or more.'
    )


def select(measured: Measured, rows) -> Measured:
  """Returns the measures of some of the clips."""
  return Measured(
    {k: v[rows] for k, v in measured.panel.items()},
    {k: v[rows] for k, v in measured.vectors.items()},
  )


def pack(measured: Measured) -> dict[str, np.ndarray]:
  """Returns {name: array}, as `numpy.savez` takes them."""
  return {
    **{f'panel/{k}': v for k, v in measured.panel.items()},
    **{f'vectors/{k}': v for k, v in measured.vectors.items()},
  }


def unpack(arrays) -> Measured:
  """Returns what `pack` was given."""
  return Measured(
    {k: arrays[f'panel/{k}'] for k in motion.PANEL},
    {k: arrays[f'vectors/{k}'] for k in descriptors.NAMES},
  )


def vectors(reference: Measured, measured: Measured, name: str) -> np.ndarray:
  """Returns one of `SUMMARY` as vectors [n d] in which distances make sense.

  The panel's measures have units and long tails: each counts by its rank among
  the reference's.
  """
  if name == 'panel':
    return np.stack(
      [
        distances.ranks(reference.panel[k], measured.panel[k])
        for k in motion.PANEL
      ],
      axis=1,
    )
  return distances.standardise(reference.vectors[name], measured.vectors[name])


def summarise(
  reference: Measured, measured: Measured, *, intervals: bool = False
) -> dict[str, dict[str, float]]:
  """Returns {name of `SUMMARY`: {'energy'[, 'low', 'high']}}; see `distances`.

  Args:
    reference: real clips.
    measured: the clips to judge.
    intervals: also the bootstrap's, 95 %.
  """
  rows = {}
  for name in SUMMARY:
    pooled = distances.Pooled(
      vectors(reference, reference, name), vectors(reference, measured, name)
    )
    rows[name] = {'energy': pooled.energy()}
    if intervals:
      low, high = pooled.interval()
      rows[name].update(low=low, high=high)
  return rows


def chance(
  reference: Measured, other: Measured, groups=None, *, quantile: float = 0.95
) -> dict[str, float]:
  """Returns the energy distance that chance alone seldom exceeds, by name.

  Args:
    reference: real clips.
    other: more real clips.
    groups: names of the videos of both sets' clips, one after the other;
      clips of a video stay together.
    quantile: of random divisions of all of them.
  """
  limits = {}
  for name in SUMMARY:
    pooled = distances.Pooled(
      vectors(reference, reference, name), vectors(reference, other, name)
    )
    limits[name] = float(np.quantile(pooled.null(groups), quantile))
  return limits


def panel(reference: Measured, measured: Measured) -> dict[str, dict]:
  """Returns each measure of the panel against the reference's distribution.

  Returns:
    {measure: {'median', 'distance' (Wasserstein, in the measure's unit),
    'separation' (two-sided AUC, 0.5 for none)}}.
  """
  rows = {}
  for name in motion.PANEL:
    real, other = reference.panel[name], measured.panel[name]
    area = distances.auc(real, other)
    rows[name] = {
      'median': float(np.median(other)),
      'distance': distances.wasserstein(real, other),
      'separation': max(area, 1 - area),
    }
  return rows


def spread(reference: Measured) -> dict[str, dict[str, float]]:
  """Returns {measure: {'median', 'low', 'high'}}, 10th and 90th percentile."""
  rows = {}
  for name, values in reference.panel.items():
    low, median, high = np.percentile(values, [10, 50, 90])
    rows[name] = {
      'median': float(median),
      'low': float(low),
      'high': float(high),
    }
  return rows


def _measure(video: np.ndarray):
  flow = optical_flow.compute(video)
  return motion.measure(video, flow), descriptors.describe(video, flow)
