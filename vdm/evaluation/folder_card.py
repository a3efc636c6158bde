"""Makes the metrics card of a folder of videos against another folder.

The videos can come from anywhere. The floor is real clips that are not in the
reference, as many as there are samples if the folder holds them; else the two
halves of the reference are compared.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from absl import logging
from etils import epath
from etils.array_types import IntArray, ui8
import numpy as np

from vdm.evaluation import clip_set
from vdm.evaluation import feature_extraction
from vdm.evaluation import metrics_card
from vdm.evaluation import result_cache
from vdm.media import video_files
from vdm.metrics import suite
from vdm.models import features
from vdm.preparation import clip_files

SHOWN = 8  # Clips of each folder in the contact sheet.


@dataclasses.dataclass(frozen=True)
class Options:
  """How folders are read and compared.

  Attributes:
    num: clips of the fake folder, at most, and of the reference.
    frames: per clip.
    resolution: height of a clip, px.
    width: of a clip, px; 0: as high.
    stride: frames of the video from one frame of a clip to the next.
    frame_rate: to which videos are converted first; 0 for none.
    per_video: clips of one real video, at most.
    sampling: how real clips are chosen, see `clip_files.read_clips`.
    seed: of that choice.
    network: see `run_card.Options`.
    classifier: see `run_card.Options`.
    unbiased: covariances over N - 1.
  """

  num: int = 2048
  frames: int = 16
  resolution: int = 64
  width: int = 0
  stride: int = 1
  frame_rate: float = 0.0
  per_video: int = 1
  sampling: str = 'random'
  seed: int = 0
  network: features.Features | None = None
  classifier: features.Features | None = None
  unbiased: bool = False


def evaluate(
  real: epath.PathLike,
  fake: epath.PathLike,
  out: epath.PathLike,
  options: Options,
) -> dict[str, Any]:
  """Writes the card of a folder against another and returns it.

  Args:
    real: folder of real videos.
    fake: folder of the videos to evaluate.
    out: folder of metrics_card.json, metrics_card.txt, a contact sheet and the
      cache.
    options: how the folders are read and compared.

  Raises:
    FileNotFoundError: a folder does not exist.
    ValueError: a folder holds no such clips, or too few.
  """
  out, network = epath.Path(out), options.network
  (samples, sources), (videos, groups) = _read(real, fake, options)
  num = len(samples)
  reference, others, halves = divide(groups, num)
  if min(len(reference), len(others), num) < 2:
    raise ValueError(
      f'{real} has {len(videos)} clips and {fake} {num}: to compare them takes '
      'two of each.'
    )
  networks = {'features': network, 'logits': options.classifier}
  whole = _measured(out, videos, groups, 'real clips', networks)
  sets = {
    'samples': _measured(out, samples, sources, 'samples', networks),
    'real': clip_set.select(whole, others),
  }
  for name, corrupt in metrics_card.CORRUPTIONS.items():
    sets[name] = _measured(
      out, corrupt(videos[others]), groups[others], f'{name} clips', {}
    )
  floor = None
  if len(halves):
    floor = clip_set.select(whole, halves), sets['real']
  card = metrics_card.make(
    clip_set.select(whole, reference),
    sets,
    floor=floor,
    features=feature_extraction.metric_name(network) if network else '',
    unbiased=options.unbiased,
  )
  card['protocol'] = _protocol(real, fake, options)
  card = metrics_card.write(out, card)
  shown = min(SHOWN, num, len(reference))
  rows = np.concatenate([samples[:shown], videos[reference[:shown]]])
  names = [f'{k} {i}' for k in ('fake', 'real') for i in range(shown)]
  sheet = video_files.contact_sheet(rows, names, upscale=None)
  video_files.write_png(out / 'clips.png', sheet)
  return card


def divide(
  groups: Sequence[str], num: int
) -> tuple[IntArray[' r'], IntArray[' f'], IntArray[' h']]:
  """Divides real clips by video.

  Args:
    groups: the video that each clip comes from.
    num: wanted number of clips in each part.

  Returns:
    Rows of the reference, of the floor, and of the half of the reference that
    the floor is compared with, empty if the floor is not in the reference.
  """
  _, group = np.unique(groups, return_inverse=True)
  order = list(dict.fromkeys(group))  # By first clip.
  rank = np.empty(len(order), int)
  rank[order] = np.arange(len(order))
  ends = np.cumsum(np.bincount(rank[group]))
  count = int(np.searchsorted(ends, num)) + 1  # Videos in the reference.
  first = np.flatnonzero(rank[group] < count)
  second = np.flatnonzero(rank[group] >= count)
  if len(second) >= num:
    return first[:num], second[:num], np.zeros(0, int)
  half = max(1, int(np.searchsorted(ends, len(groups) / 2)) + 1)
  half = min(half, len(ends) - 1)
  inside = rank[group] < half
  logging.info(
    'There are %d real clips, too few for %d and as many others: the floor is '
    'one half of them against the other.',
    len(groups),
    num,
  )
  return (
    np.arange(len(groups))[:num],
    np.flatnonzero(~inside),
    np.flatnonzero(inside),
  )


def _read(real, fake, options: Options):
  """Returns (clips, names of their videos) of the fake and the real folder."""
  shared = {
    name: getattr(options, name)
    for name in (
      'frames',
      'resolution',
      'width',
      'stride',
      'frame_rate',
      'seed',
    )
  }
  samples, sources = clip_files.read_clips(
    fake, num=options.num, sampling='first', **shared
  )
  suite.check(samples)
  others = clip_files.read_clips(
    real,
    num=2 * len(samples),
    sampling=options.sampling,
    per_video=options.per_video,
    **shared,
  )
  return (samples, sources), others


def _protocol(real, fake, options: Options) -> dict[str, Any]:
  """Returns everything that the numbers of the card depend on."""
  network, classifier = options.network, options.classifier
  return {
    'real': str(real),
    'fake': str(fake),
    **{
      field.name: getattr(options, field.name)
      for field in dataclasses.fields(options)
      if field.name not in ('network', 'classifier')
    },
    'features': network and network.protocol,
    'classifier': classifier and classifier.protocol,
    'suite': suite.VERSION,
    'clip_set': clip_set.VERSION,
    'versions': metrics_card.versions(),
  }


def _measured(
  out: epath.Path,
  videos: ui8['n t h w 3'],
  groups: Sequence[str],
  title: str,
  networks: dict[str, features.Features | None],
) -> clip_set.ClipSet:
  """Returns a set of clips, from the cache or measured.

  Args:
    out: folder of the card.
    videos: the clips.
    groups: the video that each clip comes from.
    title: of the set, for messages.
    networks: those whose 'features' and 'logits' are computed, if any.
  """
  folder = out / result_cache.FOLDER
  key = {'clips': result_cache.fingerprint(videos)}

  def read():
    return videos, groups, np.full(len(videos), -1)

  clips = clip_set.cached(folder, key, read, title)
  # The key does not depend on them.
  clips = clips._replace(groups=np.asarray(groups))
  for name, network in networks.items():
    if network is not None:
      arrays = feature_extraction.cached(folder, key, read, network, name)
      clips = clips._replace(**arrays)
  return clips
