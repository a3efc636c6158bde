"""The metrics card: numbers on a set of samples and what to compare them with.

Every number is also computed for other sets: real clips that are not in the
reference (the floor), these clips through the autoencoder (the ceiling of the
video model), and these clips corrupted (what a failure looks like). All are
compared with one reference of real clips.
"""

from collections.abc import Mapping, Sequence
import json
import platform
from typing import Any

import cv2
from etils import epath
import jax
import numpy as np

from vdm.common import files
from vdm.evaluation import caption_score
from vdm.evaluation import card_text
from vdm.evaluation import clip_set
from vdm.metrics import corruptions
from vdm.metrics import frechet
from vdm.metrics import inception
from vdm.metrics import laws
from vdm.metrics import suite
from vdm.metrics import synthetic_truth

INCEPTION_PARTS = 10  # As is usual.
CORRUPTIONS = {
  'shuffled': corruptions.shuffle_frames,
  'frozen': corruptions.freeze,
  'mixed': corruptions.mix_clips,
}


def make(
  reference: clip_set.ClipSet,
  sets: dict[str, clip_set.ClipSet],
  *,
  floor: tuple[clip_set.ClipSet, clip_set.ClipSet] | None = None,
  features: str = '',
  unbiased: bool = False,
  captions: Mapping[str, Sequence[str]] | None = None,
  side: int = 0,
) -> dict[str, Any]:
  """Returns the numbers of a card, as JSON values.

  Args:
    reference: real clips.
    sets: by name, 'samples', which get intervals, and 'real' among them.
    floor: two disjoint sets of real clips; by default the reference and 'real'.
    features: name of the Frechet distance of the features, e.g. 'fvd'.
    unbiased: covariances over N - 1.
    captions: of the clips of some of the sets, by set.
    side: the shorter one of their frames, px.
  """
  first, second = floor or (reference, sets['real'])
  pairs = {name: (reference, clips) for name, clips in sets.items()}
  pairs['real'] = first, second
  card = {
    'counts': {
      'reference': len(reference.groups),
      **{name: len(clips.groups) for name, clips in sets.items()},
    },
    'energy': _energy(pairs),
    'from_samples': {
      name: suite.between(
        reference.measured, sets['samples'].measured, clips.measured
      )
      for name, clips in sets.items()
      if name != 'samples'
    },
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
    card[features] = _features(pairs, unbiased)
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
  if captions and reference.truth is not None:
    card['captions'] = {
      name: caption_score.summarise(
        caption_score.shown(sets[name].truth, sets[name].laws, side), told
      )
      for name, told in captions.items()
    }
  return card


def versions() -> dict[str, str]:
  """Returns the versions of the libraries that compute the numbers."""
  return {
    'python': platform.python_version(),
    'jax': jax.__version__,
    'numpy': np.__version__,
    'opencv': cv2.__version__,
  }


def write(out: epath.Path, card: dict[str, Any]) -> dict[str, Any]:
  """Writes metrics_card.json and .txt; returns the card as JSON restores it."""
  out.mkdir(parents=True, exist_ok=True)
  data = json.dumps(card, indent=1, allow_nan=False) + '\n'
  card = json.loads(data)
  files.write_text(out / 'metrics_card.json', data)
  files.write_text(out / 'metrics_card.txt', card_text.text(card))
  return card


def _energy(pairs) -> dict[str, dict]:
  """Returns {vectors: {set: energy distance, 'chance': limit}}.

  Args:
    pairs: {set: (reference, clips)}.
  """
  rows = {name: {} for name in suite.SUMMARY}
  for name, (reference, clips) in pairs.items():
    found = suite.summarise(
      reference.measured, clips.measured, intervals=name == 'samples'
    )
    for key, row in found.items():
      rows[key][name] = row
  first, second = pairs['real']
  limits = suite.chance(
    first.measured,
    second.measured,
    np.concatenate([first.groups, second.groups]),
  )
  for key, limit in limits.items():
    rows[key]['chance'] = limit
  return rows


def _features(pairs, unbiased: bool) -> dict[str, dict]:
  """Returns {set: {'frechet', 'kernel', 'clips', ...}} of sets with features.

  Args:
    pairs: {set: (reference, clips)}.
    unbiased: covariances over N - 1.
  """

  def distance(x, y):
    return frechet.frechet_of_features(x, y, unbiased=unbiased)

  found = {}
  for name, (reference, clips) in pairs.items():
    if clips.features is None:
      continue
    x, y = reference.features, clips.features
    found[name] = {
      'frechet': distance(x, y),
      'kernel': frechet.kernel_distance(x, y),
      'clips': [len(x), len(y)],
    }
    if min(len(x), len(y)) >= frechet.LEAST_TO_EXTRAPOLATE:
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
  """Returns {set: {'score', 'spread'}} of the sets with logits."""
  found = {}
  for name, clips in sets.items():
    if clips.logits is not None:
      parts = min(INCEPTION_PARTS, len(clips.logits))
      mean, spread = inception.score(clips.logits, parts=parts)
      found[name] = {'score': mean, 'spread': spread}
  return found
