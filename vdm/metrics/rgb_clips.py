"""Clips as the metrics take them: uint8 RGB [n t h w 3]."""

from collections.abc import Callable

from etils.array_types import ui8
import numpy as np


def check(videos: ui8['n t h w 3']) -> None:
  """Raises ValueError unless these are uint8 RGB clips."""
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      f'Metrics take uint8 clips [n t h w 3], not {videos.dtype} '
      f'{videos.shape}.'
    )


def measure_each(
  function: Callable[..., dict[str, np.ndarray]], videos: ui8['n t h w 3']
) -> dict[str, np.ndarray]:
  """Returns {name: [n ...]}, what a function returns of each clip."""
  check(videos)
  found = [function(video) for video in videos]
  return {name: np.stack([clip[name] for clip in found]) for name in found[0]}
