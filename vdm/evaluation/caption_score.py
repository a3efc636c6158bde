"""Scores clips of synthetic scenes by what their captions say of them.

Of each attribute that a caption names, the share of the clips that show it: one
object throughout, its colour (the named hue nearest to its own), its shape, its
direction (of the line fitted to its path) and its size. Captions whose colour,
shape and direction were held out from training are scored apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from etils.array_types import IntArray
import numpy as np

from vdm.common import tables
from vdm.data.synthetic import captions

GROUPS = ('seen', 'held_out')
_TITLES = {
  'clips': ('clips', 1),
  'number': ('one object, %', 100),
  'colour': ('colour, %', 100),
  'shape': ('shape, %', 100),
  'direction': ('direction, %', 100),
  'size': ('size, %', 100),
  'all': ('all that is said, %', 100),
}


def shown(
  truth: Mapping[str, np.ndarray], laws: Mapping[str, np.ndarray], side: int
) -> dict[str, IntArray[' n']]:
  """Returns what clips show, as the numbers of `captions.Attributes`.

  Args:
    truth: `synthetic_truth.measure` of the clips.
    laws: `laws.measure` of them.
    side: the shorter one of a frame, px, with which scenes scale.

  Returns:
    'colour', 'shape', 'direction' and 'size' int [n], -1 for none; 'number'
    int [n], 1 if there is one object in every frame and no other.
  """
  hue, kind = truth['hue'], laws['kind'][:, 0]
  sizes = np.where(truth['present'], truth['size'], np.nan) * 64 / side
  known = truth['present'].any(axis=1)
  size = np.full(len(known), -1)
  size[known] = np.searchsorted(
    captions.SIZE_BOUNDS, np.nanmedian(sizes[known], axis=1)
  )
  return {
    'number': (truth['present'] & truth['single']).all(axis=1).astype(int),
    'colour': np.array(
      [captions.colour_of(x) if np.isfinite(x) else -1 for x in hue]
    ),
    'shape': np.where(np.isfinite(kind), kind, -1).astype(int),
    'direction': truth['direction'],
    'size': size,
  }


def summarise(
  found: Mapping[str, IntArray[' n']], told: Sequence[str]
) -> dict[str, dict[str, float]]:
  """Compares what clips show with their captions.

  Args:
    found: see `shown`.
    told: a caption of each clip.

  Returns:
    {'seen' or 'held_out': {'clips', and for each attribute the share of the
    clips whose caption names it that show it; 'all': of those that show all
    that is named}}; groups without clips are left out, and captions that are
    not of one object.
  """
  hits = {group: [] for group in GROUPS}
  for i, caption in enumerate(told):
    wanted = captions.parse(caption)
    if wanted is None:
      continue
    right = {'number': bool(found['number'][i])}
    for name, value in wanted._asdict().items():
      if value is not None:
        right[name] = bool(found[name][i] == value)
    hits[GROUPS[captions.is_held_out([wanted])]].append(right)
  scores = {}
  for group, rows in hits.items():
    if not rows:
      continue
    names = [name for name in _TITLES if any(name in row for row in rows)]
    scores[group] = {
      'clips': float(len(rows)),
      **{
        name: float(np.mean([row[name] for row in rows if name in row]))
        for name in names
      },
      'all': float(np.mean([all(row.values()) for row in rows])),
    }
  return scores


def table(scores: Mapping[str, Mapping[str, Any]]) -> str:
  """Formats {set: what `summarise` returned} as text."""
  rows = {
    f'{name}, {group.replace("_", " ")}': values
    for name, groups in scores.items()
    for group, values in groups.items()
  }
  return tables.by_set(rows, _TITLES)
