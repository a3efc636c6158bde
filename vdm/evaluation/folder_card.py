"""Makes the metrics card of a folder of videos against another folder.

Nothing is known of how the videos were made. The floor are real clips that are
not in the reference, as many as there are samples where the folder holds them;
else the reference's two halves, held against each other.
"""

import dataclasses
from typing import Any

from absl import logging
from etils import epath
import numpy as np

from vdm.common import progress
from vdm.evaluation import features
from vdm.evaluation import metrics_card
from vdm.evaluation import result_cache
from vdm.media import video_files
from vdm.metrics import suite
from vdm.preparation import clip_files


@dataclasses.dataclass(frozen=True)
class Options:
  """How folders are read and compared.

  Attributes:
    num: clips of the fake folder at most, and of the reference.
    frames: of a clip.
    resolution: of a clip, px.
    stride: frames from one of a clip to the next.
    frame_rate: that videos are brought to first; 0: each its own.
    per_video: clips taken from one real video, at most.
    sampling: which real clips, see `clip_files.read_clips`.
    seed: of that choice.
    features: see `runs.Options`.
    classifier: see `runs.Options`.
    unbiased: covariances over N - 1.
  """

  num: int = 2048
  frames: int = 16
  resolution: int = 64
  stride: int = 1
  frame_rate: float = 0.0
  per_video: int = 1
  sampling: str = 'random'
  seed: int = 0
  features: Any = None
  classifier: Any = None
  unbiased: bool = False


def evaluate(real, fake, out, options: Options) -> dict[str, Any]:
  """Writes the card of a folder against another, and returns it.

  Args:
    real: folder of real videos.
    fake: folder of the videos to judge.
    out: folder for metrics_card.json, metrics_card.txt, a contact sheet and
      what is kept.
    options: how.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it holds no such clips, or too few.
  """
  out = epath.Path(out)
  shared = dict(
    frames=options.frames,
    resolution=options.resolution,
    stride=options.stride,
    frame_rate=options.frame_rate,
    seed=options.seed,
  )
  samples, sources = clip_files.read_clips(
    fake, num=options.num, sampling='first', **shared
  )
  num = len(samples)
  videos, groups = clip_files.read_clips(
    real,
    num=2 * num,
    sampling=options.sampling,
    per_video=options.per_video,
    **shared,
  )
  suite.check(samples)
  reference, others, halves = divide(groups, num)
  if min(len(reference), len(others), num) < 2:
    raise ValueError(
      f'{real} has {len(videos)} clips and {fake} {num}: to compare them takes '
      'two of each.'
    )
  network = options.features
  networks = {'features': network, 'logits': options.classifier}
  whole = _known(out, videos, groups, 'real clips', networks)
  known = {
    'samples': _known(out, samples, sources, 'samples', networks),
    'real': _select(whole, others),
  }
  for name, spoil in metrics_card.SPOILED.items():
    known[name] = _known(
      out, spoil(videos[others]), groups[others], f'{name} clips', {}
    )
  card = metrics_card.make(
    _select(whole, reference),
    known,
    floor=(_select(whole, halves), known['real']) if len(halves) else None,
    features=features.metric(network) if network else '',
    unbiased=options.unbiased,
  )
  card['protocol'] = {
    'real': str(real),
    'fake': str(fake),
    **{
      field.name: getattr(options, field.name)
      for field in dataclasses.fields(options)
      if field.name not in ('features', 'classifier')
    },
    'features': network and network.protocol,
    'classifier': options.classifier and options.classifier.protocol,
    'suite': suite.VERSION,
    'versions': metrics_card.versions(),
  }
  card = metrics_card.write(out, card)
  shown = min(8, num, len(reference))
  rows = np.concatenate([samples[:shown], videos[reference[:shown]]])
  names = [f'{k} {i}' for k in ('fake', 'real') for i in range(shown)]
  video_files.write_png(
    out / 'clips.png', video_files.contact_sheet(rows, names, upscale=None)
  )
  return card


def divide(groups, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Divides real clips by video.

  Args:
    groups: [n] the video each comes from.
    num: wanted in each part.

  Returns:
    Rows of the reference, of the floor's clips, and of the half of the
    reference that the floor's are held against: empty where the floor's are not
    in the reference.
  """
  _, group = np.unique(groups, return_inverse=True)
  order = list(dict.fromkeys(group))  # As they came.
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
  every = np.arange(len(groups))[:num]
  inside = rank[group] < half
  logging.info(
    'There are %d real clips, too few for %d and as many others: the floor is '
    'one half of them against the other.',
    len(groups),
    num,
  )
  return every, np.flatnonzero(~inside), np.flatnonzero(inside)


def _known(out, videos, groups, title, networks) -> metrics_card.Clips:
  """Returns what is known of clips, measured now or kept."""
  key = {'clips': result_cache.fingerprint(videos)}

  def measure():
    logging.info('Measuring %d %s.', len(videos), title)
    return metrics_card.pack(
      metrics_card.describe(
        videos,
        groups,
        np.full(len(videos), -1),
        progress=progress.reporter(title, len(videos)),
      )
    )

  clips = metrics_card.unpack(
    result_cache.get(out / 'kept', {**key, 'suite': suite.VERSION}, measure)
  )._replace(groups=np.asarray(groups))
  for name, network in networks.items():
    if network is not None:
      found = result_cache.get(
        out / 'kept',
        {**key, 'features': network.protocol},
        lambda name=name, network=network: {
          name: features.extract(network, videos)
        },
      )
      clips = clips._replace(**found)
  return clips


def _select(clips: metrics_card.Clips, rows) -> metrics_card.Clips:
  return clips._replace(
    measured=suite.select(clips.measured, rows),
    groups=clips.groups[rows],
    labels=clips.labels[rows],
    features=None if clips.features is None else clips.features[rows],
    logits=None if clips.logits is None else clips.logits[rows],
  )
