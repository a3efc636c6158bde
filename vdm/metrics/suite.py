"""The suite: distances between sets of clips, without learned weights.

  real, samples = suite.measure(real_videos), suite.measure(videos)
  energies = suite.summarise(real, samples)
  measures = suite.panel(real, samples)

`summarise` says how far a set is from the real one as a distribution of
vectors: the energy distance on each of `descriptors.NAMES`, and on all measures
of the panel of `motion.py` together. `panel` says in which measures: the median
of the set, the Wasserstein distance between the two distributions in the
measure's own unit, to be compared with the spread of the real clips (`spread`),
and how well the measure alone separates the sets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
from etils.array_types import FloatArray, IntArray, ui8
import numpy as np

from vdm.common import parallel
from vdm.metrics import descriptors
from vdm.metrics import distances
from vdm.metrics import motion
from vdm.metrics import optical_flow
from vdm.metrics import rgb_clips

VERSION = 1  # Increment it when the same clips give different numbers.
# The vectors that sets are compared by; 'panel' is all measures together.
SUMMARY = (*descriptors.NAMES, 'panel')


class Measured(NamedTuple):
  """Measurements of n clips.

  Attributes:
    panel: by measure of `motion.PANEL`.
    vectors: by name of `descriptors.NAMES`.
  """

  panel: dict[str, FloatArray[' n']]
  vectors: dict[str, FloatArray['n d']]


def measure(
  videos: ui8['n t h w 3'],
  *,
  threads: int | None = None,
  progress: Callable[..., None] | None = None,
) -> Measured:
  """Measures each clip independently, in threads.

  Args:
    videos: clips of at least 3 frames.
    threads: number of threads; by default one per core.
    progress: called with the number of clips done after each of them.

  Raises:
    ValueError: these are no such clips.
  """
  check(videos)
  clips, before = [], cv2.getNumThreads()
  cv2.setNumThreads(1)  # Parallel over clips, not within a frame.
  try:
    for clip in parallel.ordered_map(_measure, videos, threads=threads):
      clips.append(clip)
      if progress is not None:
        progress(len(clips))
  finally:
    cv2.setNumThreads(before)
  return Measured(
    {k: np.array([clip[0][k] for clip in clips]) for k in motion.PANEL},
    {k: np.stack([clip[1][k] for clip in clips]) for k in descriptors.NAMES},
  )


def check(videos: ui8['n t h w 3']) -> None:
  """Raises ValueError unless these are clips of enough frames."""
  rgb_clips.check(videos)
  if videos.shape[1] < motion.LEAST_FRAMES:
    raise ValueError(
      f'Clips of {videos.shape[1]} frames have no motion to measure: give at '
      f'least {motion.LEAST_FRAMES} frames.'
    )


def select(measured: Measured, rows: IntArray[' m']) -> Measured:
  """Returns the measurements of some of the clips."""
  return unpack({name: values[rows] for name, values in pack(measured).items()})


def pack(measured: Measured) -> dict[str, np.ndarray]:
  """Returns {name: array}, to be stored by `numpy.savez`."""
  return {
    f'{part}/{name}': values
    for part, group in measured._asdict().items()
    for name, values in group.items()
  }


def unpack(arrays: Mapping[str, np.ndarray]) -> Measured:
  """Returns the measurements that `pack` was given."""
  return Measured(
    {k: arrays[f'panel/{k}'] for k in motion.PANEL},
    {k: arrays[f'vectors/{k}'] for k in descriptors.NAMES},
  )


def vectors(
  reference: Measured, measured: Measured, name: str
) -> FloatArray['n d']:
  """Returns one of `SUMMARY`, scaled so that its dimensions are comparable.

  The panel's measures have different units and long tails: each is replaced by
  its rank among the reference's.
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
    measured: the clips to evaluate.
    intervals: also return the bootstrap interval of 95 %.
  """
  rows = {}
  for name in SUMMARY:
    pooled = _pooled(reference, measured, name)
    rows[name] = {'energy': pooled.energy()}
    if intervals:
      low, high = pooled.interval()
      rows[name].update(low=low, high=high)
  return rows


def between(
  reference: Measured, first: Measured, second: Measured
) -> dict[str, float]:
  """Returns {name of `SUMMARY`: energy distance of two sets}.

  Args:
    reference: real clips, which scale the vectors.
    first: a set of clips.
    second: another set of clips.
  """
  return {
    name: distances.Pooled(
      *(vectors(reference, clips, name) for clips in (first, second))
    ).energy()
    for name in SUMMARY
  }


def chance(
  reference: Measured,
  other: Measured,
  groups: Sequence[str] | None = None,
  *,
  quantile: float = 0.95,
) -> dict[str, float]:
  """Returns a quantile of the energy distances of random divisions, by name.

  Args:
    reference: real clips.
    other: other real clips.
    groups: names of the videos of both sets' clips, concatenated; clips of a
      video stay together.
    quantile: which one.
  """
  return {
    name: float(
      np.quantile(_pooled(reference, other, name).null(groups), quantile)
    )
    for name in SUMMARY
  }


def panel(reference: Measured, measured: Measured) -> dict[str, dict]:
  """Compares each measure of the panel with the reference's distribution.

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
    found = np.percentile(values, [50, 10, 90]).tolist()
    rows[name] = dict(zip(('median', 'low', 'high'), found, strict=True))
  return rows


def _pooled(reference: Measured, measured: Measured, name: str):
  return distances.Pooled(
    vectors(reference, reference, name), vectors(reference, measured, name)
  )


def _measure(video: np.ndarray) -> tuple[dict, dict]:
  flow = optical_flow.compute(video)
  return motion.measure(video, flow), descriptors.describe(video, flow)
