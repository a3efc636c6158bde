"""The metrics card: numbers on a set of samples, and what to read them by.

Every number stands beside the same number of other sets: real clips that are
not the reference (the floor), those clips through the autoencoder (the ceiling
of the video model) and those clips spoiled (what failing looks like). All are
held against one reference of real clips.
"""

import json
import platform
from typing import Any, NamedTuple

import cv2
from etils import epath
import jax
import numpy as np

from vdm.evaluation import card_text
from vdm.metrics import corruptions
from vdm.metrics import frechet
from vdm.metrics import inception
from vdm.metrics import laws
from vdm.metrics import neighbours
from vdm.metrics import suite
from vdm.metrics import synthetic_truth

INCEPTION_PARTS = 10
SPOILED = {
  'shuffled': corruptions.shuffle_frames,
  'frozen': corruptions.freeze,
  'mixed': corruptions.mix_clips,
}


class Clips(NamedTuple):
  """What is known of one set of n clips.

  Attributes:
    measured: of the offline suite.
    groups: [n] the video each comes from.
    labels: [n] classes, -1 for none.
    features: [n d] of a network, or None.
    logits: [n classes] of a classifier, or None.
    laws: what `laws.measure` says of scenes, or None.
    truth: what `synthetic_truth.measure` says of scenes of one straight mover,
      or None.
    small: what `neighbours.describe` says, or None.
  """

  measured: suite.Measured
  groups: np.ndarray
  labels: np.ndarray
  features: np.ndarray | None = None
  logits: np.ndarray | None = None
  laws: dict[str, np.ndarray] | None = None
  truth: dict[str, np.ndarray] | None = None
  small: np.ndarray | None = None


def describe(
  videos: np.ndarray,
  groups: np.ndarray,
  labels: np.ndarray,
  *,
  world: laws.World | None = None,
  straight: bool = False,
  progress=None,
) -> Clips:
  """Measures a set of clips; features are the caller's.

  Args:
    videos: uint8 [n t h w 3].
    groups: [n] the video each comes from.
    labels: [n] classes, -1 for none.
    world: laws that scenes are under; None for clips that are no scenes.
    straight: they show one straight mover.
    progress: see `suite.measure`.
  """
  return Clips(
    suite.measure(videos, progress=progress),
    np.asarray(groups, np.str_),
    np.asarray(labels, np.int64),
    laws=laws.measure(videos, world) if world else None,
    truth=synthetic_truth.measure(videos) if straight else None,
    small=neighbours.describe(videos),
  )


def pack(clips: Clips) -> dict[str, np.ndarray]:
  """Returns {name: array}, as `numpy.savez` takes them."""
  arrays = suite.pack(clips.measured)
  for name in ('groups', 'labels', 'features', 'logits', 'small'):
    if (value := getattr(clips, name)) is not None:
      arrays[name] = value
  for name in ('laws', 'truth'):
    for key, value in (getattr(clips, name) or {}).items():
      arrays[f'{name}/{key}'] = value
  return arrays


def unpack(arrays) -> Clips:
  """Returns what `pack` was given."""

  def group(name):
    found = {
      key.removeprefix(f'{name}/'): arrays[key]
      for key in arrays
      if key.startswith(f'{name}/')
    }
    return found or None

  return Clips(
    suite.unpack(arrays),
    arrays['groups'],
    arrays['labels'],
    arrays.get('features'),
    arrays.get('logits'),
    group('laws'),
    group('truth'),
    arrays.get('small'),
  )


def make(
  reference: Clips,
  sets: dict[str, Clips],
  *,
  floor: tuple[Clips, Clips] | None = None,
  features: str = '',
  unbiased: bool = False,
) -> dict[str, Any]:
  """Returns the numbers, JSON values; 'samples' and 'real' are among the sets.

  Args:
    reference: real clips.
    sets: {name: clips}; 'samples' get intervals.
    floor: real clips and other real clips, where they are not the reference and
      the set 'real'.
    features: what the distances of features are called, 'fvd' for instance.
    unbiased: covariances over N - 1.
  """
  first, second = floor or (reference, sets['real'])
  card = {
    'counts': {
      'reference': len(reference.groups),
      **{name: len(clips.groups) for name, clips in sets.items()},
    },
    'energy': _energy(reference, sets, first, second),
    'panel': {
      'reference': suite.spread(reference.measured),
      **{
        name: suite.panel(reference.measured, clips.measured)
        for name, clips in sets.items()
        if name != 'real'
      },
      'real': suite.panel(first.measured, second.measured),
    },
  }
  if floor is not None:
    card['counts']['floor'] = [len(first.groups), len(second.groups)]
  if sets['samples'].features is not None:
    card[features] = _features(reference, sets, first, second, unbiased)
  if sets['samples'].logits is not None:
    card['inception'] = _inception(sets)
  if reference.laws is not None:
    card['laws'] = {
      name: laws.summarise(clips.laws, clips.labels, reference.laws)
      for name, clips in sets.items()
    }
  if reference.truth is not None:
    card['synthetic_truth'] = {
      name: synthetic_truth.summarise(
        clips.truth, clips.labels, reference.truth
      )
      for name, clips in sets.items()
    }
  return card


def versions() -> dict[str, str]:
  """Returns what the numbers were computed with."""
  return {
    'python': platform.python_version(),
    'jax': jax.__version__,
    'numpy': np.__version__,
    'opencv': cv2.__version__,
  }


def write(out: epath.Path, card: dict[str, Any]) -> dict[str, Any]:
  """Writes metrics_card.json and .txt; returns what is in the first one."""
  out.mkdir(parents=True, exist_ok=True)
  data = json.dumps(card, indent=1, allow_nan=False) + '\n'
  card = json.loads(data)
  for name, content in (
    ('metrics_card.json', data),
    ('metrics_card.txt', card_text.text(card)),
  ):
    partial = out / f'{name}.partial'
    partial.write_text(content)
    partial.replace(out / name)
  return card


def _energy(reference, sets, first, second) -> dict[str, dict]:
  limits = suite.chance(
    first.measured,
    second.measured,
    np.concatenate([first.groups, second.groups]),
  )
  rows = {name: {} for name in suite.SUMMARY}
  for name, clips in sets.items():
    if name == 'real':
      found = suite.summarise(first.measured, second.measured)
    else:
      found = suite.summarise(
        reference.measured, clips.measured, intervals=name == 'samples'
      )
    for key, row in found.items():
      rows[key][name] = row
  for key, limit in limits.items():
    rows[key]['chance'] = limit
  return rows


def _features(reference, sets, first, second, unbiased) -> dict[str, dict]:
  """Returns {set: {'fvd', 'fvd_infinity', 'kvd', ...}}, samples with 'low'."""

  def distance(x, y):
    return frechet.frechet_of_features(x, y, unbiased=unbiased)

  found = {}
  for name, clips in sets.items():
    if clips.features is None:
      continue
    pair = (first, second) if name == 'real' else (reference, clips)
    x, y = (c.features for c in pair)
    found[name] = {
      'frechet': distance(x, y),
      'kernel': frechet.kernel_distance(x, y),
      'clips': [len(x), len(y)],
    }
    if min(len(x), len(y)) >= 16:
      found[name]['infinity'] = frechet.frechet_infinity(
        x, y, unbiased=unbiased
      )
    if name == 'samples':
      for key, statistic in (
        ('frechet', distance),
        ('kernel', frechet.kernel_distance),
      ):
        low, high = frechet.bootstrap(statistic, x, y, repeats=50)
        found[name][f'{key}_interval'] = [low, high]
  return found


def _inception(sets) -> dict[str, dict[str, float]]:
  """Returns {set: {'score', 'spread'}}, in as many parts as is usual."""
  found = {}
  for name, clips in sets.items():
    if clips.logits is not None:
      parts = min(INCEPTION_PARTS, len(clips.logits))
      mean, spread = inception.score(clips.logits, parts=parts)
      found[name] = {'score': mean, 'spread': spread}
  return found
