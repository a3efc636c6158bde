"""Whether two objects that cross come out of it as the ones that went in.

They are apart at first and at last, one hides the other in between, and their
hues tell them apart (`scenes.render` with `crossings`). So each is followed by
its hue, and a line is fitted to its places where it is in full view. Colours or
directions that are swapped while one hides the other are far from one line.
"""

from collections.abc import Sequence

from etils.array_types import BoolArray, FloatArray
import numpy as np

from vdm.metrics import object_finder
from vdm.metrics import trajectories

NAMES = ('meets', 'crosses')

_WHOLE = 0.8  # Of its usual area: a smaller one is partly hidden.
_MEETS = 0.6  # Distance of the lines at their nearest, in sums of both radii.
_LINE = 1.0  # RMS distance from the line, px: real ones 0.8, swaps 2.2 on.
_ODD_FRAMES = 1 / 16  # May lack an object in full view, or have a third one.


def measure(
  frames: Sequence[object_finder.Objects], scale: float, gravity: float
) -> dict[str, float]:
  """Measures one clip.

  Args:
    frames: `object_finder.find` of the clip.
    scale: shorter side of the clip over 64 px.
    gravity: px a frame a frame, downwards; between walls there are no lines.

  Returns:
    1 or 0: 'meets', one gets near enough to hide the centre of the other;
    'crosses', they do, and both are on their lines before and after, in the
    same colours, with nothing missing that cannot be hidden and nothing more.
  """
  t = len(frames)
  hues = _hues(frames)
  if hues is None:
    return dict.fromkeys(NAMES, 0.0)
  areas, places, strangers = _follow(frames, hues)
  times = np.arange(t, dtype=np.float64)
  places[:, :, 1] -= gravity / 2 * times**2
  whole = areas >= _WHOLE * np.nanmedian(areas, axis=1, keepdims=True)
  if (whole.sum(1) < 3).any():
    return dict.fromkeys(NAMES, 0.0)
  lines = [np.polyfit(times[w], p[w], 1) for w, p in zip(whole, places)]
  fitted = np.stack([times[:, None] * a + b for a, b in lines])
  off = [
    np.sqrt(np.square(p[w] - f[w]).sum(-1).mean())
    for w, p, f in zip(whole, places, fitted)
  ]
  gap = np.linalg.norm(fitted[0] - fitted[1], axis=-1)
  reach = np.sqrt(np.nanmedian(areas, axis=1) / np.pi).sum()
  # One may hide the other where they are nearer.
  apart = gap > trajectories.REACH * reach
  # Where outlines meet, colours mix.
  odd = apart & (strangers | ~whole.all(0))
  meets = gap.min() <= _MEETS * reach and not whole.all()
  ends = whole[:, : t // 4].any(1).all() and whole[:, -(t // 4) :].any(1).all()
  kept = ends and max(off) <= _LINE * scale and odd.sum() <= _ODD_FRAMES * t
  return {'meets': float(meets), 'crosses': float(meets and kept)}


def _hues(frames) -> FloatArray['2'] | None:
  """Returns the hues of two objects, if there are two at first."""
  for found in frames[:2]:
    hues = found.hue
    if (
      len(hues) == 2
      and object_finder.hue_distance(*hues) > object_finder.SAME_HUE
    ):
      return hues
  return None


def _follow(
  frames, hues
) -> tuple[FloatArray['2 t'], FloatArray['2 t 2'], BoolArray[' t']]:
  """Returns areas and places of both hues, and where there is a third one.

  An object that is divided by the one in front of it is put together again. One
  that is not seen has no area, and its place is NaN.
  """
  t = len(frames)
  areas, places = np.zeros((2, t)), np.full((2, t, 2), np.nan)
  strangers = np.zeros(t, bool)
  for i, found in enumerate(frames):
    distance = object_finder.hue_distance(found.hue[:, None], hues)
    strangers[i] = (distance.min(1, initial=1.0) > object_finder.SAME_HUE).any()
    for k in range(2):
      parts = distance[:, k] <= object_finder.SAME_HUE
      area = np.pi * found.size[parts] ** 2
      if area.size:
        areas[k, i] = area.sum()
        places[k, i] = area @ found.centre[parts] / area.sum()
  return areas, places, strangers
