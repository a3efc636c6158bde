"""A set of clips and everything that is measured on it, cached on disk."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from etils.array_types import FloatArray, IntArray, StrArray, ui8
import numpy as np

from vdm.common import progress
from vdm.evaluation import result_cache
from vdm.metrics import laws
from vdm.metrics import neighbours
from vdm.metrics import suite
from vdm.metrics import synthetic_truth
from vdm.multihost import coordination

# Increment it when the same clips give other laws, truth or thumbnails.
VERSION = 1


class ClipSet(NamedTuple):
  """Measurements of n clips.

  Attributes:
    measured: by the suite.
    groups: the video that each clip comes from.
    labels: classes, -1 for none.
    features: of a network, or None.
    logits: of a classifier of k classes, or None.
    laws: `laws.measure`, of synthetic scenes.
    truth: `synthetic_truth.measure`, of scenes of one straight mover.
    small: `neighbours.thumbnails`.
  """

  measured: suite.Measured
  groups: StrArray[' n']
  labels: IntArray[' n']
  features: FloatArray['n d'] | None = None
  logits: FloatArray['n k'] | None = None
  laws: dict[str, np.ndarray] | None = None
  truth: dict[str, np.ndarray] | None = None
  small: ui8['n d'] | None = None


def describe(
  videos: ui8['n t h w 3'],
  groups: Sequence[str],
  labels: Sequence[int],
  *,
  world: laws.World | None = None,
  straight: bool = False,
  report: Callable[..., None] | None = None,
) -> ClipSet:
  """Measures a set of clips with everything but networks.

  Args:
    videos: the clips.
    groups: the video that each clip comes from.
    labels: classes, -1 for none.
    world: the laws of synthetic scenes; None for other clips.
    straight: the scenes show one straight mover.
    report: called with the number of clips that the suite has measured.
  """
  return ClipSet(
    suite.measure(videos, progress=report),
    np.asarray(groups, np.str_),
    np.asarray(labels, np.int64),
    laws=laws.measure(videos, world) if world else None,
    truth=synthetic_truth.measure(videos) if straight else None,
    small=neighbours.thumbnails(videos),
  )


def cached(
  folder: epath.Path,
  key: dict[str, Any],
  read: Callable[..., tuple],
  title: str,
  **scenes: Any,
) -> ClipSet | None:
  """Returns a set of clips, from the cache or measured by the first process.

  Args:
    folder: of the cache.
    key: what the clips depend on.
    read: () -> videos, groups and labels.
    title: of the set, for messages.
    **scenes: 'world' and 'straight', see `describe`.

  Returns:
    The set; None on all processes but the first.
  """

  def measure():
    videos, groups, labels = read()
    if not coordination.is_first():
      return None
    logging.info('Measuring %d %s.', len(videos), title)
    report = progress.reporter(title, len(videos))
    return pack(describe(videos, groups, labels, **scenes, report=report))

  key = {**key, 'clip_set': VERSION, 'suite': suite.VERSION}
  arrays = result_cache.get(folder, key, measure)
  return None if arrays is None else unpack(arrays)


def select(clips: ClipSet, rows: IntArray[' m']) -> ClipSet:
  """Returns some of the clips of a set."""
  return unpack({name: values[rows] for name, values in pack(clips).items()})


def pack(clips: ClipSet) -> dict[str, np.ndarray]:
  """Returns {name: array}, to be stored by `numpy.savez`."""
  arrays = suite.pack(clips.measured)
  for name in ('groups', 'labels', 'features', 'logits', 'small'):
    if (value := getattr(clips, name)) is not None:
      arrays[name] = value
  for name in ('laws', 'truth'):
    for key, value in (getattr(clips, name) or {}).items():
      arrays[f'{name}/{key}'] = value
  return arrays


def unpack(arrays: Mapping[str, np.ndarray]) -> ClipSet:
  """Returns the set that `pack` was given."""

  def group(name):
    prefix = f'{name}/'
    found = {
      key.removeprefix(prefix): value
      for key, value in arrays.items()
      if key.startswith(prefix)
    }
    return found or None

  return ClipSet(
    suite.unpack(arrays),
    arrays['groups'],
    arrays['labels'],
    arrays.get('features'),
    arrays.get('logits'),
    group('laws'),
    group('truth'),
    arrays.get('small'),
  )
